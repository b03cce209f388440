r"""An app in the browser: give a photo and its spike stream, see what the checks say, deblur, look, download.

    python -m pip install -r requirements-app.txt
    python scripts/app.py
    python scripts/app.py --host 0.0.0.0 --port 8000 --max_mb 50        # for others, too: it asks for no password

It listens on this computer alone unless --host says otherwise. One capture is deblurred at a time, others wait. What is
uploaded and made lies in a temporary folder: it is removed an hour later, and all of it when the app ends.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import Size, option, parse_config, weights_of, with_weights  # noqa: E402
from codes.errors import InputError, one_line  # noqa: E402
from codes.model.registry import method_names  # noqa: E402

KEPT = 3600
"""Seconds until what was uploaded or made is removed."""

EXAMPLE = Size(256, 448)
"""Size of the example that is rendered."""

FLIPS = {"none": set(), "vertical": {"v"}, "horizontal": {"h"}, "both": {"v", "h"}}


@with_weights
@dataclass(frozen=True)
class AppConfig:
    """Where the app listens, and its limits."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0: every one of this computer")
    port: int = option(7860, "port", low=1, high=65535)
    max_mb: int = option(200, "largest file, in MB", low=1)
    max_megapixels: float = option(12.0, "largest image", above=0)
    max_frames: int = option(97, "most sharp frames", low=1)
    max_waiting: int = option(20, "most captures that wait", low=1)
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = option("fp32", "of the networks")


@dataclass(frozen=True)
class Asked:
    """What the form says of a capture, as text."""

    blur: str | None
    spike: str | None
    size: str
    exposure: str
    flip: str
    bit_order: str
    crop: str
    auto: bool

    def open(self, most: float):
        """The capture; ``most``: megapixels."""
        from codes.inference import Reading, open_capture

        if not (self.blur and self.spike):
            raise InputError("give a photo and a stream, or take the example")
        exposure = _numbers(self.exposure, r"(\d+):(\d+)", "exposure", "START:END")
        reading = Reading.of(
            _numbers(self.size, r"(\d+)\s*x\s*(\d+)", "spike size", "HEIGHTxWIDTH"),
            bit_order=self.bit_order,
            exposure=slice(*exposure) if exposure else None,
            flip=self.flip,
            crop=_numbers(self.crop, r"(-?\d+),(-?\d+),(\d+),(\d+)", "crop", "TOP,LEFT,HEIGHT,WIDTH"),
            tone="auto" if self.auto else "linear",
            align="auto" if self.auto else "off",
            bad_pixels=self.auto,
        )
        height, width = read_size(self.blur)
        if height * width > most * 1e6:
            raise InputError(f"the image has more than {most:g} megapixels, which is the limit of this app")
        return open_capture(self.blur, self.spike, reading)

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
    found = {}
    if flip := re.search(r"--flip (vertical|horizontal|both)", said):
        turned = FLIPS[asked.flip] ^ FLIPS[flip[1]]
        found["flip"] = next(name for name, turns in FLIPS.items() if turns == turned)
    if "--bit_order" in said:
        found["bit_order"] = "little" if asked.bit_order == "big" else "big"
    if (crop := re.search(r"--crop=([-\d,]+)", said)) and not (asked.crop or "").strip():
        found["crop"] = crop[1]
    if window := re.search(r"--exposure (\d+:\d+)\b(?! leaves)", said):
        found["exposure"] = window[1]
    return found


def look(asked: Asked, most: float) -> tuple[str, dict[str, str]]:
    """What the checks say in words, and the remedies."""
    try:
        capture = asked.open(most)
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


def deblur(asked: Asked, deblurrer, count: int, cfg: AppConfig, folder: Path, step) -> None:
    """Write frames, video, archive and page to ``folder``; ``step(done, of)`` is told of each frame."""
    import zipfile

    from codes.image import AnimationWriter, write_image
    from codes.report.page import Page, capture_view, made_by
    from codes.spike import evenly

    capture = asked.open(cfg.max_megapixels)
    if not 1 <= count <= cfg.max_frames:
        raise InputError(f"{count} frames; expected 1 to {cfg.max_frames}")
    instants = evenly(capture.exposure, count)
    with AnimationWriter(folder / "sequence.mp4", 12, count > 1) as video:
        for done, (instant, frame) in enumerate(zip(instants, deblurrer.frames(capture, instants), strict=True), 1):
            write_image(folder / f"{instant:03}.png", frame)
            video.add(frame)
            step(done, count)
    name, title = Path(asked.blur).name, deblurrer.method.title
    view = capture_view(folder, capture.picture, capture.spike, instants, title, name=name, notes=capture.notes)
    about = {"Method": title, "Weights": ", ".join(Path(path).name for path in deblurrer.method.weights)}
    Page(name, views=[view], about=about | made_by()).write(folder / "index.html")
    with zipfile.ZipFile(folder / "frames.zip", "w") as archive:
        for instant in instants:
            archive.write(folder / f"{instant:03}.png", f"{instant:03}.png")


def build(cfg: AppConfig, deblurrers: dict, results: Path, gr):
    """The app's form; ``deblurrers``: name -> :class:`codes.inference.Deblurrer`."""
    import html
    import secrets
    import shutil
    import time
    import traceback

    names = {deblurrer.method.title: name for name, deblurrer in deblurrers.items()}
    fields = ("flip", "bit_order", "crop", "exposure")
    labels = {"flip": "Flip", "bit_order": "Bit order", "crop": "Crop", "exposure": "Exposure"}

    def looked(*values):
        if not (values[0] and values[1]):
            return ["Give a photo and a stream.", *[gr.update(visible=False)] * len(fields)]
        try:
            text, found = look(Asked(*values), cfg.max_megapixels)
        except Exception:  # a bug: its traceback belongs on the server, not to a visitor
            traceback.print_exc()
            text, found = "**Cannot be used:** the check failed; the terminal of the app says why", {}
        buttons = [
            gr.update(visible=field in found, value=f"{labels[field]}: {found.get(field, '')}") for field in fields
        ]
        return [text, *buttons]

    def mended(text):
        return text.partition(": ")[2]

    def made(method, count, *values, progress=gr.Progress()):  # noqa: B008
        for old in results.iterdir():
            if time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)
        folder, asked = results / secrets.token_urlsafe(16), Asked(*values)
        folder.mkdir()
        try:
            progress(0, desc="reading")
            told = lambda done, of: progress((done, of), desc="deblurring", unit="frames")  # noqa: E731
            deblur(asked, deblurrers[names[method]], int(count), cfg, folder, told)
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            if not isinstance(error, InputError | OSError):
                traceback.print_exc()
                error = InputError("deblurring failed; the terminal of the app says why")
            return f"**Cannot be used:** {asked.said(error)}", "", None
        files = [str(path) for name in ("sequence.mp4", "frames.zip") if (path := folder / name).is_file()]
        address = html.escape(f"results/{folder.name}/index.html")
        page = f'<iframe title="Viewer" src="{address}" style="width: 100%; height: 85vh; border: 0"></iframe>'
        return f"**Done:** {int(count)} frames by {method}", page, files

    with gr.Blocks(title="S-SDM", analytics_enabled=False, delete_cache=(600, KEPT)) as app:
        gr.Markdown("# S-SDM: a sharp video from one blurry photo and its spikes")
        with gr.Row():
            blur = gr.File(label="Blurry photo", elem_id="blur")
            spike = gr.File(label="Spike stream (.dat, .npy, .npz)", elem_id="spike")
            shown = gr.Button("Render an example", elem_id="example")
        with gr.Accordion("What is known of them", open=False, elem_id="known"):
            auto = gr.Checkbox(True, label="Find what is not told, and mend what is clear", elem_id="auto")
            with gr.Row():
                size = gr.Textbox(label="Spike size, HEIGHTxWIDTH", placeholder="found")
                exposure = gr.Textbox(
                    label="Exposure, START:END", placeholder="found; 20:117 of 137 frames", elem_id="exposure"
                )
                flip = gr.Dropdown(list(FLIPS), value="none", label="Flip", elem_id="flip")
                bits = gr.Dropdown(["little", "big"], value="little", label="Bit order")
                crop = gr.Textbox(label="Crop, TOP,LEFT,HEIGHT,WIDTH", placeholder="all of the photo")
        status = gr.Markdown("Give a photo and a stream.", elem_id="status")
        with gr.Row():
            buttons = [gr.Button(labels[field], visible=False, elem_id=f"mend_{field}") for field in fields]
        with gr.Row():
            first = next(title for title, name in names.items() if name == ("ldn" if "ldn" in deblurrers else name))
            method = gr.Dropdown(list(names), value=first, label="Method")
            count = gr.Slider(1, cfg.max_frames, min(7, cfg.max_frames), step=1, label="Instants", elem_id="count")
            go = gr.Button("Deblur", variant="primary", elem_id="go")
        done = gr.Markdown("", elem_id="done")
        viewer = gr.HTML("", elem_id="page")
        files = gr.File(label="Video and frames", file_count="multiple", interactive=False, elem_id="files")

        asked = [blur, spike, size, exposure, flip, bits, crop, auto]
        for field in asked:
            field.change(looked, asked, [status, *buttons], show_progress="hidden")
        targets = {"flip": flip, "bit_order": bits, "crop": crop, "exposure": exposure}
        for field, button in zip(fields, buttons, strict=True):
            button.click(mended, button, targets[field])
        shown.click(lambda: example(Path(_new_folder(results))), None, [blur, spike])
        go.click(made, [method, count, *asked], [done, viewer, files], concurrency_limit=1, concurrency_id="job")
    return app.queue(max_size=cfg.max_waiting, default_concurrency_limit=1)


def _new_folder(results: Path) -> str:
    import tempfile

    return tempfile.mkdtemp(dir=results)


def main(argv: list[str] | None = None) -> None:
    """Load the networks, listen."""
    cfg = parse_config(AppConfig, argv)
    import os
    import tempfile

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
        print(f"http://{cfg.host}:{cfg.port} (Ctrl+C ends it)", flush=True)
        uvicorn.run(server, host=cfg.host, port=cfg.port, log_level="warning")


if __name__ == "__main__":
    command(main)
