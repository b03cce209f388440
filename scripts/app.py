r"""An app in the browser: give a photo and its spike stream, see what the checks say, deblur, look, download.

    python -m pip install -r requirements-app.txt
    python scripts/app.py
    python scripts/app.py --host 0.0.0.0 --port 8000 --max_mb 50        # for others, too: it asks for no password

It listens on this computer alone unless --host says otherwise. One capture is deblurred at a time, others wait. What is
uploaded and made lies in a temporary folder: it is removed after --keep_minutes, and all of it when the app ends.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import Size, option, parse_config, weights_of, with_weights  # noqa: E402
from codes.errors import InputError, one_line  # noqa: E402
from codes.model.registry import method_names, method_of  # noqa: E402

EXAMPLE = Size(256, 448)
"""Size of the example that is rendered."""

FLIPS = {"none": set(), "vertical": {"v"}, "horizontal": {"h"}, "both": {"v", "h"}}

REMEDIES = {
    "flip": ("Flip", r"--flip (vertical|horizontal|both)"),
    "bit_order": ("Bit order", r"--bit_order (big|little)"),
    "exposure": ("Exposure", r"--exposure (\d+:\d+)\b(?! leaves)|\(best (\d+:\d+)\)"),
    "tone": ("Tone", r"--tone ([a-z]+(?::[\d.]+)?)"),
    "crop": ("Field of view", r"--crop=([-\d,]+)"),
    "size": ("Spike size", r"may hold frames of (\d+x\d+)|; (\d+x\d+)[^;]* would fit its length"),
    "exif": ("Turn the photo as its Exif says", r"--(no)-exif"),
}
"""Field -> its label, and how the checks say what would mend it."""


@with_weights
@dataclass(frozen=True)
class AppConfig:
    """Where the app listens, and its limits."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0: every one of this computer")
    port: int = option(7860, "port", low=1, high=65535)
    max_mb: int = option(200, "largest file, in MB; an archive may unpack to 8 times that", low=1)
    max_megapixels: float = option(12.0, "largest image", above=0)
    max_frames: int = option(97, "most sharp frames", low=1)
    max_waiting: int = option(20, "most captures that wait", low=1)
    keep_minutes: float = option(60.0, "until what was uploaded or made is removed", above=0)
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = option("fp32", "of the networks")


@dataclass(frozen=True)
class Asked:
    """What the form says of a capture, as text."""

    blur: str | None
    spike: str | None
    auto: bool
    flip: str
    bit_order: str
    exposure: str
    tone: str
    crop: str
    size: str
    exif: str

    def open(self, cfg: AppConfig):
        """The capture, with a doubt about its tone where that is told and does not fit."""
        from codes.inference import Reading, open_capture
        from codes.tone import estimate

        if not (self.blur and self.spike):
            raise InputError("give a photo and a stream, or take the example")
        exposure = _numbers(self.exposure, r"(\d+):(\d+)", "exposure", "START:END")
        reading = Reading.of(
            _numbers(self.size, r"(\d+)\s*x\s*(\d+)", "spike size", "HEIGHTxWIDTH"),
            bit_order=self.bit_order,
            exposure=slice(*exposure) if exposure else None,
            flip=self.flip,
            crop=_numbers(self.crop, r"(-?\d+),(-?\d+),(\d+),(\d+)", "field of view", "TOP,LEFT,HEIGHT,WIDTH"),
            tone=self.tone if self.tone != "found" else "auto" if self.auto else "linear",
            align="auto" if self.auto else "off",
            bad_pixels=self.auto,
            exif=self.exif == "yes",
        )
        height, width = read_size(self.blur)
        if height * width > cfg.max_megapixels * 1e6:
            raise InputError(
                f"the image has more than {cfg.max_megapixels:g} megapixels, which is the limit of this app"
            )
        if zipfile.is_zipfile(self.spike):
            with zipfile.ZipFile(self.spike) as archive:
                if sum(member.file_size for member in archive.infolist()) > 8e6 * cfg.max_mb:
                    raise InputError(f"{self.spike} unpacks to more than {8 * cfg.max_mb} MB, the limit of this app")
        capture = open_capture(self.blur, self.spike, reading)
        found = estimate(capture.picture, capture.tfp_long())
        if reading.tone == "auto" or not found.sure or found.tone == capture.tone:
            return capture
        return capture.doubted(
            f"the photo is taken as {capture.tone.name} and looks like {found.tone.name} (gamma {found.gamma:.2f}, "
            f"{found.low:.2f} to {found.high:.2f} fit); try --tone {found.tone.name}"
        )

    def said(self, error) -> str:
        """An error in one line, without the folders of uploads."""
        text = one_line(error)
        for path in filter(None, (self.blur, self.spike)):
            text = text.replace(path, Path(path).name)
        return text


def read_size(path) -> tuple[int, int]:
    """(height, width) of an image by its header, before anything large is decoded."""
    from PIL import Image, UnidentifiedImageError  # comes with scikit-image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError):
        raise InputError(f"{path} is no image that can be decoded, or it is too large") from None


def _numbers(text: str, pattern: str, name: str, form: str) -> tuple | None:
    text = (text or "").strip()
    if not text:
        return None
    found = re.fullmatch(pattern, text.replace(", ", ","))
    if not found or any(len(part) > 7 for part in found.groups()):
        raise InputError(f"{name} is '{text[:40]}'; expected {form}")
    return tuple(int(part) for part in found.groups())


def remedies(said: str, asked: Asked) -> dict[str, str]:
    """What would mend what the checks say: field -> value."""
    matches = {field: re.search(pattern, said) for field, (_, pattern) in REMEDIES.items()}
    found = {field: next(filter(None, match.groups())) for field, match in matches.items() if match}
    if "flip" in found:
        turned = FLIPS[asked.flip] ^ FLIPS[found["flip"]]
        found["flip"] = next(name for name, turns in FLIPS.items() if turns == turned)
    if "bit_order" in found:
        found["bit_order"] = "little" if asked.bit_order == "big" else "big"
    if (asked.crop or "").strip():  # a second one is counted from what the first made of the photo
        found.pop("crop", None)
    return found


def look(asked: Asked, cfg: AppConfig) -> tuple[str, dict[str, str]]:
    """What the checks say in words, and the remedies."""
    try:
        capture = asked.open(cfg)
    except (InputError, OSError) as error:
        text = asked.said(error)
        return f"**Cannot be used:** {text}", remedies(text, asked)
    size, spikes, exposure = capture.blur.shape, capture.spike.shape, capture.exposure
    lines = [
        f"photo {size[0]}x{size[1]}, {spikes[0]} spike frames of {spikes[1]}x{spikes[2]}, "
        f"exposure {exposure.start}:{exposure.stop}, tone {capture.tone.name}"
    ]
    lines += [f"**Check:** {doubt}" for doubt in capture.doubts]
    if not capture.doubts:
        lines[0] = f"**Image and spikes fit:** {lines[0]}"
    lines += [f"found: {note}" for note in capture.notes]
    return "\n\n".join(lines), remedies(" ".join(capture.doubts), asked)


def example(folder: Path) -> tuple[str, str]:
    """A photo and a stream that are rendered from a photograph of scikit-image's."""
    from codes.dat import write_dat
    from codes.image import write_image
    from codes.making.degradation import Setting, record, sample_of, spikes
    from codes.making.photos import find_photos
    from codes.making.synthesis import Scene

    photos, setting = [str(path) for path in find_photos(None).values()], Setting()
    sample = sample_of(0, 32.0, photos, EXAMPLE, 0)
    blur, _, lights = record(Scene(sample), EXAMPLE, {setting.view})
    paths = folder / "example.png", folder / "example.dat"
    write_image(paths[0], blur)
    write_dat(paths[1], spikes(lights[setting.view], setting, EXAMPLE, sample.rng(2)))
    return str(paths[0]), str(paths[1])


class Cancelled(Exception):  # noqa: N818
    """Nobody waits for the job any more."""


def deblur(asked: Asked, deblurrer, frames: str, cfg: AppConfig, folder: Path, step) -> int:
    """Write frames, video, archive and page to ``folder``; ``step(done, of)`` is told of each frame.

    Returns:
        How many frames.
    """
    from codes.image import AnimationWriter, write_image
    from codes.inference.captures import chosen_instants
    from codes.report.page import Page, capture_view, made_by

    capture = asked.open(cfg)
    instants = chosen_instants(frames, capture.exposure)
    if len(instants) > cfg.max_frames:
        raise InputError(f"{len(instants)} frames; the limit of this app is {cfg.max_frames}")
    with AnimationWriter(folder / "sequence.mp4", 12, len(instants) > 1) as video:
        for done, (instant, frame) in enumerate(zip(instants, deblurrer.frames(capture, instants), strict=True), 1):
            write_image(folder / f"{instant:03}.png", frame)
            video.add(frame)
            step(done, len(instants))
    name, title = Path(asked.blur).name, deblurrer.method.title
    notes = [*capture.doubts, *capture.notes]
    view = capture_view(folder, capture.picture, capture.spike, instants, title, name=name, notes=notes)
    about = {"Method": title, "Weights": ", ".join(Path(path).name for path in deblurrer.method.weights)}
    Page(name, views=[view], about=about | made_by()).write(folder / "index.html")
    with zipfile.ZipFile(folder / "frames.zip", "w") as archive:
        for instant in dict.fromkeys(instants):
            archive.write(folder / f"{instant:03}.png", f"{instant:03}.png")
    return len(instants)


def sweep(folders: list[Path], minutes: float) -> None:
    """Remove what lies in the folders for longer, for ever."""
    while True:
        time.sleep(min(15 * minutes, 600))
        for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - 60 * minutes:
                    shutil.rmtree(path)


def build(cfg: AppConfig, deblurrers: dict, results: Path, gr):
    """The app's form; ``deblurrers``: name -> :class:`codes.inference.Deblurrer`."""
    names = {deblurrer.method.title: name for name, deblurrer in deblurrers.items()}
    jobs: dict[str, threading.Event] = {}  # session -> set: cancelled

    def looked(*values):
        if not (values[0] and values[1]):
            return ["Give a photo and a stream.", *[gr.update(visible=False)] * len(REMEDIES)]
        try:
            text, found = look(Asked(*values), cfg)
        except Exception:  # a bug: its traceback belongs on the server, not to a visitor
            traceback.print_exc()
            text, found = "**Cannot be used:** the check failed; the terminal of the app says why", {}
        labels = {field: f"{label}: {found.get(field, '')}" for field, (label, _) in REMEDIES.items()}
        return [text, *(gr.update(visible=field in found, value=labels[field]) for field in REMEDIES)]

    def begun(request: gr.Request):
        jobs[request.session_hash] = threading.Event()
        return gr.update(interactive=False), gr.update(visible=True), "waiting"

    def cancelled(request: gr.Request):
        if job := jobs.pop(request.session_hash, None):
            job.set()

    def made(request: gr.Request, method, frames, *values, progress=gr.Progress()):  # noqa: B008
        folder, asked = results / secrets.token_urlsafe(16), Asked(*values)
        job = jobs.get(request.session_hash)

        def told(done, of):
            if job is None or job.is_set():
                raise Cancelled
            progress((done, of), desc="deblurring", unit="frames")

        folder.mkdir()
        try:
            told(0, 1)
            count = deblur(asked, deblurrers[names[method]], frames, cfg, folder, told)
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, Cancelled):
                return "**Cancelled**", "", None
            if not isinstance(error, InputError | OSError):
                traceback.print_exc()
                error = InputError("deblurring failed; the terminal of the app says why")
            return f"**Cannot be used:** {asked.said(error)}", "", None
        files = [str(path) for name in ("sequence.mp4", "frames.zip") if (path := folder / name).is_file()]
        address = f"results/{folder.name}/index.html"
        page = f'<iframe title="Viewer" src="{address}" style="width: 100%; height: 85vh; border: 0"></iframe>'
        return f"**Done:** {count} frames by {method}", page, files

    def ended():
        return gr.update(interactive=True), gr.update(visible=False)

    with gr.Blocks(title="S-SDM", analytics_enabled=False) as app:
        gr.Markdown("# S-SDM: a sharp video from one blurry photo and its spikes")
        with gr.Row():
            blur = gr.File(label="Blurry photo", elem_id="blur")
            spike = gr.File(label="Spike stream (.dat, .npy, .npz)", elem_id="spike")
            shown = gr.Button("Render an example", elem_id="example")
        with gr.Accordion("What is known of them", open=False, elem_id="known"):
            auto = gr.Checkbox(True, label="Find what is not told, and mend what is clear", elem_id="auto")
            kinds: dict = {
                "flip": (gr.Dropdown, {"choices": list(FLIPS), "value": "none"}),
                "bit_order": (gr.Dropdown, {"choices": ["little", "big"], "value": "little"}),
                "exposure": (gr.Textbox, {"placeholder": "START:END; found; 20:117 of 137 frames"}),
                "tone": (gr.Dropdown, {"choices": ["found", "linear", "srgb", "gamma:2.2"], "value": "found"}),
                "crop": (gr.Textbox, {"placeholder": "TOP,LEFT,HEIGHT,WIDTH; all of the photo"}),
                "size": (gr.Textbox, {"placeholder": "HEIGHTxWIDTH; found"}),
                "exif": (gr.Dropdown, {"choices": ["yes", "no"], "value": "yes"}),
            }
            kinds["tone"][1]["allow_custom_value"] = True
            with gr.Row():
                fields = {
                    field: kinds[field][0](label=label, elem_id=field, **kinds[field][1])
                    for field, (label, _) in REMEDIES.items()
                }
        status = gr.Markdown("Give a photo and a stream.", elem_id="status")
        with gr.Row():
            buttons = {field: gr.Button(visible=False, elem_id=f"mend_{field}") for field in REMEDIES}
        with gr.Row():
            usual = method_of([])
            first = next(title for title, name in names.items() if name == (usual if usual in deblurrers else name))
            method = gr.Dropdown(list(names), value=first, label="Method")
            frames = gr.Textbox("7", label="Instants: how many, or which (20,68,116)", elem_id="frames")
            go = gr.Button("Deblur", variant="primary", elem_id="go")
            cancel = gr.Button("Cancel", visible=False, elem_id="cancel")
        done = gr.Markdown("", elem_id="done")
        viewer = gr.HTML("", elem_id="page")
        files = gr.File(label="Video and frames", file_count="multiple", interactive=False, elem_id="files")

        asked = [blur, spike, auto, *fields.values()]
        for field in asked:
            field.change(looked, asked, [status, *buttons.values()], show_progress="hidden", trigger_mode="always_last")
        for field, button in buttons.items():
            button.click(lambda text: text.partition(": ")[2], button, fields[field])
        shown.click(lambda: example(Path(tempfile.mkdtemp(dir=results))), None, [blur, spike])
        go.click(begun, None, [go, cancel, done], queue=False).then(
            made, [method, frames, *asked], [done, viewer, files], concurrency_limit=1
        ).then(ended, None, [go, cancel], queue=False)
        cancel.click(cancelled, None, None, queue=False)
        app.unload(cancelled)  # who closes the page waits no more
    return app.queue(max_size=cfg.max_waiting, default_concurrency_limit=1)


def main(argv: list[str] | None = None) -> None:
    """Load the networks, listen."""
    cfg = parse_config(AppConfig, argv)
    with tempfile.TemporaryDirectory(prefix="ssdm-app-") as temporary:
        results, uploads = Path(temporary, "results"), Path(temporary, "uploads")
        results.mkdir()
        os.environ |= {"GRADIO_TEMP_DIR": str(uploads), "GRADIO_ANALYTICS_ENABLED": "False"}
        try:
            import gradio as gr
            import uvicorn
            from fastapi import FastAPI
            from fastapi.staticfiles import StaticFiles
        except ImportError as error:
            raise InputError(f"{error}: python -m pip install -r requirements-app.txt") from None
        from codes.inference import Deblurrer

        deblurrers = {}
        paths = {f"{flag}_path": path for flag, path in weights_of(cfg).items()}
        for name in method_names()[1:]:
            try:
                deblurrers[name] = Deblurrer(name, device=cfg.device, precision=cfg.precision, **paths)
            except FileNotFoundError:
                continue  # a method without weights is not offered
        threading.Thread(target=sweep, args=([results, uploads], cfg.keep_minutes), daemon=True).start()
        server = FastAPI()
        server.mount("/results", StaticFiles(directory=results))
        fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}  # none from elsewhere
        gr.mount_gradio_app(
            server,
            build(cfg, deblurrers, results, gr),
            "/",
            server_name=cfg.host,
            server_port=cfg.port,
            max_file_size=cfg.max_mb * 10**6,
            allowed_paths=[str(results)],
            show_error=False,
            ssr_mode=False,
            theme=gr.themes.Default(**fonts),
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is removed then, too
        print(f"http://{cfg.host}:{cfg.port} (Ctrl+C ends it)", flush=True)
        uvicorn.run(server, host=cfg.host, port=cfg.port, log_level="warning", timeout_graceful_shutdown=2)


if __name__ == "__main__":
    command(main)
