"""Does a run survive what machines do to it? kill -9, full disks, lost data, a second process, a long run.

    python scripts/dev/torture.py --out exp/torture
    python scripts/dev/torture.py --out exp/torture --only kill_sr data_prepare --kills 50

The scripts are run as a user runs them, on a tiny data set made here, and disturbed from outside. What comes out in the
end is compared bit for bit with what an undisturbed run leaves. Each trial's verdict is kept in torture.json, so that
trials can be run one by one; torture.md is the table of all of them. Exit code 1 if a trial of this call failed. Linux.

    kill_bsn, kill_sr, kill_deblur, kill_textures, kill_student, kill_stir    training is killed at random moments and
                      started again; deblur and textures with --cache, textures also with --teacher_cache
    data_demo, data_prepare, data_cache, data_resimulate      the same for the scripts that make data
    full_disk, read_only, lost_data, bad_sample      the disk or the data fail in the middle of training (as root only)
    two_processes     a second process in a run folder
    long_run          memory, also of the GPU where there is one, and open files over 2,000 steps
    orphans           loader processes whose parent is killed
    determinism       the same weights with 0 to 3 loader processes
"""

import hashlib
import json
import logging
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from codes.engine.command import command  # noqa: E402
from codes.engine.options import option, parse_config  # noqa: E402
from codes.engine.provenance import provenance  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.files import write_json, write_text  # noqa: E402

STAGES = {
    "bsn": ("train_bsn.py", 60),
    "sr": ("train_sr.py", 60),
    "deblur": ("train_deblur.py", 90),
    "student": ("scripts/train_student.py", 60),
    "stir": ("scripts/baselines/train_stir.py", 24),
}
"""Script and steps of a run."""
LIMIT = 300.0
"""Seconds after which a process counts as hanging."""
GRACE = 10.0
"""Seconds that the other processes of a killed one have to end."""
LEAK = 2.0
"""MB per 1,000 steps that count as a leak."""


# What is checked: each function returns the faults that it finds, in words ---------------------------------------


def temporaries(*folders: Path) -> list[Path]:
    """Temporary files that lie below the folders."""
    return [
        Path(parent, name)
        for folder in folders
        for parent, _, names in os.walk(folder)
        for name in names
        if name.startswith(".") and ".tmp" in name
    ]


def leftovers(*folders: Path) -> list[str]:
    """Each temporary file is a fault."""
    return [f"temporary file left: {path}" for path in temporaries(*folders)]


def different_weights(expected: Path, found: Path) -> list[str]:
    """Whether two run folders hold the same weight files with the same tensors, bit for bit."""
    names = [{path.name for path in (run / "ckpts").glob("[!.]*.pth")} - {"state.pth"} for run in (expected, found)]
    faults = [f"{found}: {name} is there in one run only" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        want, have = (torch.load(run / "ckpts" / name, weights_only=True) for run in (expected, found))
        if list(want) != list(have):
            faults.append(f"{found}: {name} has other keys")
            continue
        changed = [key for key in want if want[key].dtype != have[key].dtype or not torch.equal(want[key], have[key])]
        if changed:
            faults.append(f"{found}: {name}: {len(changed)} of {len(want)} tensors differ, first {changed[0]}")
    return faults or ([] if names[0] else [f"{expected} holds no weights"])


def wrong_steps(steps: list[int], total: int, where: str) -> list[str]:
    """Whether the steps are 1, 2, ..., total."""
    faults, count = [], Counter(steps)
    if missing := sorted(set(range(1, total + 1)) - set(steps)):
        faults.append(f"{where}: {len(missing)} of {total} steps are missing, first {missing[0]}")
    if doubles := sorted(step for step in count if count[step] > 1):
        faults.append(f"{where}: {len(doubles)} steps are there twice, first {doubles[0]}")
    if odd := sorted(set(steps) - set(range(1, total + 1))):
        faults.append(f"{where}: step {odd[0]} is none of 1 to {total}")
    return faults or ([] if steps == sorted(steps) else [f"{where}: the steps are out of order"])


def read_records(run: Path) -> tuple[list[dict], list[str]]:
    """The records of metrics.jsonl without their seconds, and broken lines as faults."""
    records, faults = [], []
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        try:
            records.append({key: value for key, value in json.loads(line).items() if key != "seconds"})
        except (ValueError, AttributeError):
            faults.append(f"{run}/metrics.jsonl: line {number} is broken: {line[:60]!r}")
    return records, faults if text.endswith("\n") else [*faults, f"{run}/metrics.jsonl does not end with a whole line"]


def different_lines(want: list, have: list, where: str, kind: str) -> list[str]:
    """Whether two logs say the same; names the first line that differs."""
    if have == want:
        return []
    first = next((i for i, (a, b) in enumerate(zip(want, have, strict=False)) if a != b), min(len(want), len(have)))
    line = str(have[first] if first < len(have) else "nothing")[:80]
    return [f"{where}: {len(have)} {kind}, expected {len(want)}; line {first + 1} differs: {line!r}"]


def different_records(expected: Path, found: Path, total: int) -> list[str]:
    """Whether metrics.jsonl has each step once and the same values."""
    want, _ = read_records(expected)
    have, faults = read_records(found)
    where = f"{found}/metrics.jsonl"
    faults += wrong_steps([record["step"] for record in have if record.get("kind") == "train"], total, where)
    return faults or different_lines(want, have, where, "records")


def read_results(run: Path) -> list[str]:
    """The lines of results.txt, without what may differ: folder and milliseconds."""
    text = (run / "results.txt").read_text(encoding="utf-8").replace(str(run), "RUN")
    return [re.sub(r"\d+ ms each$", "N ms each", line) for line in text.split("\n")]


def different_results(expected: Path, found: Path) -> list[str]:
    """Whether results.txt says the same in whole lines.

    Each start says how many textures it found in --teacher_cache. A run that is killed after its state says that it is
    finished has no last line 'finished at step'.
    """
    want, have = read_results(expected), read_results(found)
    if have[-1]:
        return [f"{found}/results.txt does not end with a whole line"]
    cached = re.compile(r"teacher cache: \d+ samples, [\d.]+ MB each, [\d.]+ GB; (none|\d+) to make, in .*[0-9a-f]{16}")
    want, have = ([line for line in lines if line and not cached.fullmatch(line)] for lines in (want, have))
    if want and want[-1].startswith("finished at step") and want[-1] not in have[-1:]:
        want.pop()
    return different_lines(want, have, f"{found}/results.txt", "lines")


def wrong_events(run: Path, total: int) -> list[str]:
    """Whether TensorBoard shows each training step and each evaluation of metrics.jsonl once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes a second

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # that it purges is what is wanted
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    if (run / "tensorboard").is_dir():
        events.Reload()
    expected = {"train/loss": list(range(1, total + 1))}
    for record in read_records(run)[0]:
        for metric in record.keys() - {"kind", "step", "epoch", "row"} if record.get("kind") == "eval" else ():
            expected.setdefault(f"{metric}/{record['row']}", []).append(record["step"])
    faults, shown = [], events.Tags()["scalars"]
    for tag, want in expected.items():  # the training loss first
        have = [event.step for event in events.Scalars(tag)] if tag in shown else []
        if have != want:
            missing, more = Counter(want) - Counter(have), Counter(have) - Counter(want)
            faults.append(
                f"{run}/tensorboard: {tag} lacks {missing.total()} of {len(want)} steps {sorted(missing)[:8]}, "
                f"has {more.total()} too many {sorted(more)[:8]}"
            )
    return faults[:3]


def tree(folder: Path) -> dict[str, str]:
    """Checksums of all files below a folder by relative path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def different_trees(expected: Path, found: Path) -> list[str]:
    """Whether two folders hold the same files, byte for byte."""
    want, have = tree(expected), tree(found)
    faults = [f"{found}/{name} is missing" for name in want.keys() - have.keys()]
    faults += [f"{found}/{name} is one too many" for name in have.keys() - want.keys() if ".tmp" not in name]
    faults += [f"{found}/{name} differs" for name in want.keys() & have.keys() if want[name] != have[name]]
    return sorted(faults) if want else [f"{expected} is empty"]


def different_runs(expected: Path, found: Path, total: int) -> list[str]:
    """Whether a disturbed run left what the undisturbed one left."""
    if not (found / "metrics.jsonl").is_file():
        return [f"{found} holds no run"]
    faults = different_weights(expected, found) + different_records(expected, found, total)
    faults += different_results(expected, found) + different_trees(expected / "imgs", found / "imgs")
    return faults + wrong_events(found, total) + leftovers(found)


def bad_ending(code: int, errors: str) -> list[str]:
    """Whether a process that had to give up did so with one line and an exit code of its own."""
    lines = [line for line in errors.splitlines() if line.strip()]
    faults = [] if code > 0 else [f"exit code {code}, expected one above 0"]
    if len(lines) != 1:
        faults.append(f"{len(lines)} lines on stderr instead of one: {' | '.join(lines[:2] + lines[-2:])[:600]}")
    return faults


def slope(steps: list[float], values: list[float]) -> float:
    """Growth of the values per 1,000 steps over their second half, by least squares."""
    half = len(steps) // 2
    return float(np.polyfit(steps[half:], values[half:], 1)[0] * 1000)


# Processes ------------------------------------------------------------------------------------------------------


def alive(session: int) -> list[int]:
    """The living processes of a session, which is what a started command and all its processes are."""
    found = []
    for number in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            state, _, _, its_session = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[:4]
            if its_session == str(session) and state not in "ZX":
                found.append(int(number))
    return found


class Child:
    """A started command, in a session of its own."""

    def __init__(self, words: list, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.errors_path = folder / "stderr.txt"
        # One thread: on few cores, threads that wait for one another would take most of the time.
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with open(self.errors_path, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, words)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        self.pid, self.begun = self.process.pid, time.monotonic()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def errors(self) -> str:
        """What it wrote to stderr."""
        return self.errors_path.read_text(encoding="utf-8", errors="replace")

    @property
    def last_words(self) -> str:
        """The end of it."""
        return self.errors.strip()[-300:]

    def until(self, happened: Callable[[], object], pause: float = 0.01) -> bool:
        """Wait until something has happened (True) or the process has ended."""
        while self.running:
            if happened():
                return True
            if time.monotonic() - self.begun > LIMIT:
                raise TimeoutError(f"it hangs: {' '.join(map(str, self.process.args[1:]))}")
            time.sleep(pause)
        return False

    def wait(self, seconds: float) -> None:
        """Wait until so many seconds after its start, or for its end."""
        self.until(lambda: time.monotonic() - self.begun > seconds, 0.003)

    def end(self) -> int:
        """Wait for its end; the exit code."""
        self.until(lambda: False, 0.05)
        return self.process.wait()

    def kill(self, group: bool = True) -> bool:
        """Kill -9 the process, or its whole group; whether it was still alive. Waits until all of it has ended."""
        hit = self.running
        try:
            (os.killpg if group else os.kill)(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            hit = False
        self.process.wait()
        return hit

    def survivors(self, seconds: float = GRACE) -> list[int]:
        """Processes that it leaves behind, after so many seconds."""
        until = time.monotonic() + seconds
        while (rest := alive(self.pid)) and time.monotonic() < until:
            time.sleep(0.05)
        return rest


# Trials ---------------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """A trial as it runs.

    Args:
        data: the tiny data set; read only.
        kills: how many processes to kill.
        rng: of the moments.
        steps: of a long run.
    """

    folder: Path
    data: Path
    kills: int
    rng: np.random.Generator
    steps: int = 2000
    commands: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    measured: dict[str, object] = field(default_factory=dict)
    skipped: str = ""
    children: list[Child] = field(default_factory=list)

    def start(self, words: list) -> Child:
        """Start a command."""
        line = "python " + " ".join(map(str, words))
        if line not in self.commands:
            self.commands.append(line)
        self.children.append(Child(words, self.folder))
        return self.children[-1]

    def whole(self, words: list) -> None:
        """Run a command undisturbed; it must succeed."""
        self.succeed(self.start(words))

    def succeed(self, child: Child) -> int:
        """Wait for the end of a process, which must succeed; the exit code."""
        if code := child.end():
            self.faults.append(f"exit code {code}: {child.last_words}")
        return code

    def sweep(self) -> None:
        """Leave no process behind; one that must be ended here is a fault."""
        for child in self.children:
            if rest := alive(child.pid):
                self.faults.append(f"{len(rest)} processes were still alive at the end of the trial")
                child.kill()

    def training(self, stage: str, folder: Path, *more, **changes) -> list:
        """The command of a tiny run that saves, logs and evaluates as often as it can; ``changes`` are options."""
        script, steps = STAGES[stage]
        options = {"base_folder": self.data, "save_folder": folder, "device": "cpu", "workers": 1, "roi_size": 16}
        options |= {"bs": 2, "train_split": "train", "max_steps": steps, "state_every": 0, "log_every": 1}
        options |= {"eval_every": 7, "eval_images": 1}
        options |= {"teacher": "sdm", "tea_loss": "l1"} if stage == "deblur" else {}
        options |= {"train_vth": 1, "precision": "fp32"} if stage == "student" else {}
        if stage == "stir":
            options |= {"roi_size": 64}
            more = ("--no-perceptual", *more)
        return [script, *(word for key, value in (options | changes).items() for word in (f"--{key}", value)), *more]


def trained(run: Path) -> int:
    """Training steps in metrics.jsonl so far."""
    try:
        return (run / "metrics.jsonl").read_bytes().count(b'"kind": "train"')
    except OSError:
        return 0


def files(folder: Path) -> int:
    """Whole files below a folder so far."""
    return sum(not name.startswith(".") for _, _, names in os.walk(folder) for name in names)


def kill_often(trial: Trial, words: Callable[[Path], list], progress: Callable[[Path], int], check) -> None:
    """Run a command undisturbed, then kill it and start it again, and compare.

    Half of the kills come at a random moment after the first new output, a quarter at a random moment of the start-up,
    and a quarter as soon as a temporary file is seen. A run that ends before it is killed as often as it should be is
    compared, and another one is begun.

    Args:
        words: the command that works in a folder.
        progress: a number that grows with the work in the folder.
        check: (folder of the undisturbed run, folder of the killed one) -> faults.
    """
    quiet = trial.folder / "undisturbed"
    child = trial.start(words(quiet))
    child.until(lambda: progress(quiet))
    startup = time.monotonic() - child.begun
    if trial.succeed(child):
        return
    work = time.monotonic() - child.begun - startup
    kinds = ["start-up"] * (trial.kills // 4) + ["writing"] * (trial.kills // 4)
    kinds += ["work"] * (trial.kills - len(kinds))
    todo = [str(kind) for kind in trial.rng.permutation(kinds)]
    spread = 2 * work / max(trial.kills, 1)
    hits, caught, launches, rounds, survivors = Counter(), 0, 0, 0, 0
    while todo and launches < 3 * trial.kills:
        rounds += 1
        folder = trial.folder / f"round{rounds}"
        code = None
        while code is None:
            kind, launches = todo[0] if todo else "", launches + 1
            before, child = progress(folder), trial.start(words(folder))
            if kind == "start-up":
                child.wait(trial.rng.uniform(0, startup))
            elif kind:
                if kind == "work" or trial.rng.random() < 0.5:
                    child.until(lambda folder=folder, before=before: progress(folder) > before, 0.003)
                    child.wait(time.monotonic() - child.begun + trial.rng.uniform(0, spread))
                old = set(temporaries(folder))
                if kind == "writing":
                    child.until(lambda folder=folder, old=old: set(temporaries(folder)) - old, 0.0005)
            if kind and child.kill():
                todo.pop(0)
                hits[kind] += 1
                caught += bool(set(temporaries(folder)) - old) if kind != "start-up" else 0
                if errors := [line for line in child.errors.splitlines() if line.strip()]:
                    trial.faults.append(f"a killed process had written to stderr: {errors[-1][:200]}")
            else:
                if todo:  # where no temporary file is ever seen, there is none to wait for
                    todo[0] = "work"
                code = trial.succeed(child)
            survivors += len(child.survivors())
        print(f"    round {rounds}: {hits.total()} of {trial.kills} kills", flush=True)
        trial.faults += check(quiet, folder)
    trial.measured |= {
        "kills that hit a living process": hits.total(),
        **{f"... at {kind}": count for kind, count in sorted(hits.items())},
        "... while a temporary file was there": caught,
        "launches": launches,
        "runs": rounds,
        "start-up / work of the undisturbed run": f"{startup:.1f} s / {work:.1f} s",
    }
    if survivors:
        trial.faults.append(f"{survivors} processes lived on for {GRACE:g} s after their group was killed")
    if hits.total() < trial.kills:
        trial.faults.append(f"only {hits.total()} of {trial.kills} kills hit a living process: the trial says little")


def kill_training(trial: Trial, stage: str, caches: tuple[str, ...] = ()) -> None:
    """Training is killed again and again; the caches lie in the run's folder."""

    def words(folder: Path) -> list:
        return trial.training(stage, folder, *(word for flag in caches for word in (f"--{flag}", folder / flag)))

    def check(quiet: Path, folder: Path) -> list[str]:
        faults = different_runs(quiet / "test", folder / "test", STAGES[stage][1])
        for flag in caches:  # textures lie under a checksum, images under the path of the data
            faults += different_trees(quiet / flag, folder / flag)
        return list(dict.fromkeys(faults + leftovers(folder, trial.data)))

    kill_often(trial, words, lambda folder: trained(folder / "test"), check)


def kill_data(trial: Trial, words: list) -> None:
    """A script that makes data in the folder that its last word names is killed again and again."""

    def check(quiet: Path, folder: Path) -> list[str]:
        return different_trees(quiet, folder) + leftovers(folder, trial.data)

    kill_often(trial, lambda folder: [*words, folder], files, check)


def data_demo(trial: Trial) -> None:
    """Demo data."""
    sizes = ["--size", "64x96", "--train", 10, "--test", 4, "--vth", 1, 2, "--workers", 2]
    kill_data(trial, ["scripts/make_demo_data.py", *sizes, "--out"])


def data_prepare(trial: Trial) -> None:
    """A data set from high-speed video."""
    raw = trial.folder / "raw_data"
    for sequence in ("a", "b"):
        (raw / sequence).mkdir(parents=True)
        picture = np.random.default_rng(len(sequence)).integers(0, 256, (64, 256, 3), dtype=np.uint8)
        picture = cv2.GaussianBlur(picture, (0, 0), 2)
        for index in range(56):
            cv2.imwrite(str(raw / sequence / f"{index:06}.png"), picture[:, 2 * index : 2 * index + 96])
    words = ["scripts/prepare_gopro.py", "--raw_folder", raw, "--vth", 1, 2, "--multi", "--workers", 2, "--out"]
    kill_data(trial, words)


def data_cache(trial: Trial) -> None:
    """The cache of decoded images."""
    data = trial.folder / "data"
    sizes = ["--size", "360x640", "--train", 30, "--test", 10, "--workers", 2]  # so large that its writing takes time
    trial.whole(["scripts/make_demo_data.py", "--out", data, *sizes])
    words = ["scripts/cache_dataset.py", "--base_folder", data, "--workers", 1, "--cache"]
    kill_data(trial, words)


def data_resimulate(trial: Trial) -> None:
    """Training data from captures."""
    words = ["scripts/resimulate.py", "--base_folder", trial.data, "--shrink", 1, "--size", "64x96", "--count", 12]
    words += ["--motion", 1, 10, "--device", "cpu", "--workers", 2, "--out"]
    kill_data(trial, words)


def resume_after(trial: Trial, spoil, room: Path | None = None) -> None:
    """Training starts, something goes wrong, the process must end with one line; mended, the run must end as ever.

    Args:
        spoil: a context manager, given the run's folder, the process and the data; all is right again after it.
        room: where the run folder is made; the trial's folder if None.
    """
    data = shutil.copytree(trial.data, trial.folder / "GOPRO", dirs_exist_ok=True)
    more = {"max_steps": (steps := 240), "eval_every": 20, "base_folder": data}
    whole, folder = trial.folder / "undisturbed", (room or trial.folder) / "disturbed"
    trial.whole(trial.training("deblur", whole, **more))
    words, run = trial.training("deblur", folder, **more), folder / "test"
    child = trial.start(words)
    state = run / "ckpts" / "state.pth"
    if not child.until(lambda: trained(run) >= 30):
        trial.faults.append(f"it ended before it was disturbed: {child.last_words}")
        return
    with spoil(run, child, data):
        begun, step = time.monotonic(), trained(run)
        code = child.end()
        trial.measured["seconds until it gave up"] = round(time.monotonic() - begun, 1)
        trial.measured["what it said"] = child.last_words
        trial.faults += bad_ending(code, child.errors)
        if rest := child.survivors():
            trial.faults.append(f"{len(rest)} loader processes outlived it")
        try:
            saved = torch.load(state, map_location="cpu", weights_only=True)["step"]
        except Exception as error:  # whatever torch raises, the state is not intact
            trial.faults.append(f"state.pth cannot be loaded: {type(error).__name__} {error}")
        else:
            trial.measured["disturbed at step / state.pth of step"] = f"{step} / {saved}"
            if not step - 2 <= saved < steps:
                trial.faults.append(f"state.pth is of step {saved}, disturbed at step {step}")
        trial.faults += leftovers(folder)
    trial.whole(words)
    trial.faults += different_runs(whole / "test", run, steps)


def is_root() -> bool:
    """Whether this process may mount."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def mounted(*words) -> Iterator[None]:
    """Mount, and unmount afterwards; the last word is the folder."""
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True, text=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(words[-1])], check=True, capture_output=True, text=True)


def full_disk(trial: Trial) -> None:
    """The disk is full; where nothing can be mounted, files may not grow instead."""
    room = trial.folder / "disk"
    room.mkdir()

    @contextmanager
    def fill(_run, child, _data):
        blocks = room / "filler"
        with open(blocks, "wb", buffering=0) as file:

            def full() -> bool:
                try:
                    file.write(bytes(4096))
                except OSError:
                    time.sleep(0.002)
                return False

            child.until(full, 0)
        trial.measured["free bytes at its end"] = shutil.disk_usage(room).free
        yield
        blocks.unlink()

    @contextmanager
    def limit(_run, child, _data):
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (2**20, 2**20))
        yield

    try:
        with mounted("-t", "tmpfs", "-o", "size=24m", "tmpfs", room):
            resume_after(trial, fill, room)
    except (OSError, subprocess.CalledProcessError) as error:
        if is_root() and not isinstance(error, subprocess.CalledProcessError):
            raise
        trial.measured["note"] = "no disk could be mounted: files were limited to 1 MB instead"
        resume_after(trial, limit, room)


def read_only(trial: Trial) -> None:
    """The run folder becomes read-only."""

    @contextmanager
    def protect(run, _child, _data):
        # Over the folder, since a disk with open files cannot be made read-only; busy while a file is being written.
        for _ in range(200):
            try:
                with mounted("--bind", "-o", "ro", run, run):
                    if os.statvfs(run).f_flag & os.ST_RDONLY:
                        yield
                        return
            except subprocess.CalledProcessError:
                time.sleep(0.01)
        raise OSError("the folder cannot be made read-only")

    if not is_root():
        trial.skipped = "only root can make a folder read-only for root, or mount"
        return
    resume_after(trial, protect)


@contextmanager
def lost_data(_run, _child, data):
    """The data set vanishes."""
    data.rename(data.with_name("elsewhere"))
    yield
    data.with_name("elsewhere").rename(data)


@contextmanager
def bad_sample(_run, _child, data):
    """A picture is overwritten by something else."""
    picture = sorted(data.glob("train/blur_data/*/*.png"))[1]
    content = picture.read_bytes()
    picture.write_bytes(content[: len(content) // 3])
    yield
    picture.write_bytes(content)


def two_processes(trial: Trial) -> None:
    """A second process in a run folder is refused, by the number of the first; the folder of a killed one is free."""
    whole, folder = trial.folder / "undisturbed", trial.folder / "shared"
    more = {"max_steps": (steps := 240), "eval_every": 0}
    trial.whole(trial.training("deblur", whole, **more))
    words = trial.training("deblur", folder, **more)
    for _ in range(3):
        first = trial.start(words)
        before = trained(folder / "test")
        if not first.until(lambda before=before: trained(folder / "test") > before, 0.003):
            trial.faults.append(f"the first had ended before the second came: {first.last_words}")
            break
        os.killpg(first.pid, signal.SIGSTOP)  # it must not finish while the second starts
        second = Child(words, trial.folder / "second")
        trial.children.append(second)
        code = second.end()
        trial.measured["what the second said"] = re.sub(r"number \d+", "number N", second.last_words)
        trial.faults += [] if first.kill() else ["the first had ended before it was killed: the trial says little"]
        trial.faults += bad_ending(code, second.errors)
        if f"number {first.pid})" not in second.errors:
            trial.faults.append(f"the second did not name process {first.pid}: {second.last_words}")
    trial.whole(words)
    trial.faults += different_runs(whole / "test", folder / "test", steps)


def held(pid: int) -> tuple[float, int] | None:
    """Resident memory of a process in MB, and its open files; None when it has ended."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return (int(found[1]) / 1024, len(os.listdir(f"/proc/{pid}/fd"))) if found else None
    except OSError:
        return None


def gpu_memory() -> float | None:
    """Memory in use on all NVIDIA GPUs, by whomever, in MB; None where there is none."""
    words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return float(sum(map(int, subprocess.check_output(words, text=True, stderr=subprocess.DEVNULL).split())))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def long_run(trial: Trial) -> None:
    """Memory and open files over 2,000 steps; on the GPU where there is one, with its memory."""
    more = {"eval_every": 40, "state_every": 5, "workers": 2, "log_every": 5, "device": "auto"}
    words = trial.training("deblur", trial.folder, max_steps=trial.steps, **more)
    child, samples = trial.start(words), []
    run, parts = trial.folder / "test", []
    child.until(lambda: trained(run) >= 5)

    def look() -> bool:
        numbers = [child.pid, *sorted(number for number in alive(child.pid) if number != child.pid)]
        parts[:] = parts or numbers
        row = [held(number) for number in parts]
        if None not in row:
            samples.append((5 * trained(run), row, gpu_memory()))
        return False

    child.until(look, 1.0)
    if code := child.end():
        trial.faults.append(f"exit code {code}: {child.errors.strip()[-300:]}")
    if len(samples) < (10 if trial.steps >= 1000 else 1):
        trial.faults.append(f"only {len(samples)} looks at the memory: the trial says little")
        return
    at = [sample[0] for sample in samples]
    trial.measured["steps, looks"] = f"{trial.steps}, {len(samples)}"

    def follow(name: str, mb: list[float]) -> None:
        grown = slope(at, mb)
        trial.measured[f"{name}: MB at start, half-way, end"] = f"{mb[0]:.1f}, {mb[len(mb) // 2]:.1f}, {mb[-1]:.1f}"
        trial.measured[f"{name}: MB per 1,000 steps, second half"] = round(grown, 3)
        if grown > LEAK and trial.steps >= 1000:  # fewer say nothing
            trial.faults.append(f"{name} grows by {grown:.1f} MB per 1,000 steps")

    if None not in (gpu := [sample[2] for sample in samples]):
        follow("GPU", gpu)
    for index in range(len(parts)):
        name = f"loader process {index}" if index else "parent"
        megabytes, opened = zip(*(sample[1][index] for sample in samples), strict=True)
        follow(name, megabytes)
        trial.measured[f"{name}: open files at start, end"] = f"{opened[0]}, {opened[-1]}"
        if opened[-1] > opened[0] + 3:
            trial.faults.append(f"{name} has {opened[-1]} open files, {opened[0]} at the start")
    trial.faults += leftovers(run)


def orphans(trial: Trial) -> None:
    """Loader processes end when their parent is killed."""
    child = trial.start(trial.training("deblur", trial.folder, max_steps=100000, workers=3, eval_every=0))
    child.until(lambda: trained(trial.folder / "test") >= 10)
    trial.measured["loader processes"] = len(alive(child.pid)) - 1
    if len(alive(child.pid)) != 4:
        trial.faults.append(f"{len(alive(child.pid))} processes, expected a parent and 3 loader processes")
    child.kill(group=False)
    begun = time.monotonic()
    if rest := child.survivors():
        trial.faults.append(f"{len(rest)} loader processes live on {GRACE:g} s after their parent")
    trial.measured["seconds until the last had ended"] = round(time.monotonic() - begun, 1)


def determinism(trial: Trial) -> None:
    """The number of loader processes changes nothing."""
    for workers in range(4):
        trial.whole(trial.training("deblur", trial.folder / f"workers{workers}", workers=workers))
    for workers in range(1, 4):
        runs = (trial.folder / f"workers{count}" / "test" for count in (0, workers))
        trial.faults += different_runs(*runs, STAGES["deblur"][1])


TRIALS: dict[str, Callable[[Trial], None]] = {
    "kill_bsn": partial(kill_training, stage="bsn"),
    "kill_sr": partial(kill_training, stage="sr"),
    "kill_deblur": partial(kill_training, stage="deblur", caches=("cache",)),
    "kill_textures": partial(kill_training, stage="deblur", caches=("cache", "teacher_cache")),
    "kill_student": partial(kill_training, stage="student"),
    "kill_stir": partial(kill_training, stage="stir"),
    **{run.__name__: run for run in (data_demo, data_prepare, data_cache, data_resimulate, full_disk, read_only)},
    **{spoil.__name__: partial(resume_after, spoil=spoil) for spoil in (lost_data, bad_sample)},
    **{run.__name__: run for run in (two_processes, long_run, orphans, determinism)},
}


# Report ---------------------------------------------------------------------------------------------------------


def machine() -> str:
    """The machine in words."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def run_trial(name: str, out: Path, kills: int, steps: int, seed: int) -> dict:
    """Run a trial in a folder of its own; what becomes of it."""
    folder = out / "work" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    moments = np.random.default_rng((seed, *name.encode()))
    trial = Trial(folder, out / "work" / "GOPRO", kills, moments, steps)
    begun = time.monotonic()
    try:
        TRIALS[name](trial)
    except (OSError, ValueError, RuntimeError, LookupError, subprocess.SubprocessError) as error:
        trial.faults.append(f"the trial broke off: {type(error).__name__}: {error}")
    finally:
        trial.sweep()
    verdict = "failed" if trial.faults else "skipped" if trial.skipped else "passed"
    if verdict == "passed":
        shutil.rmtree(folder, ignore_errors=True)

    def plain(text: str) -> str:
        """Without what is this machine's own."""
        for path, word in ((out, "OUT"), (ROOT, ".")):
            text = text.replace(str(path), word)
        return text

    _, commit, versions = provenance()
    return {
        "verdict": verdict,
        "seconds": round(time.monotonic() - begun, 1),
        "commit": commit.removeprefix("commit: "),
        "machine": machine(),
        "versions": versions,
        "seed": seed,
        "note": trial.skipped,
        "measured": {key: plain(value) if isinstance(value, str) else value for key, value in trial.measured.items()},
        "faults": [plain(fault) for fault in dict.fromkeys(trial.faults)],
        "commands": [plain(line) for line in trial.commands],
    }


def report(trials: dict[str, dict]) -> str:
    """The results as Markdown."""
    about = "What a run survives; made by `python scripts/dev/torture.py`, whose docstring says what is done."
    lines = ["# Torture", "", about, ""]
    for key in ("machine", "versions"):
        lines.append(f"- {key}: " + "; ".join(dict.fromkeys(trial[key] for trial in trials.values())))
    lines += ["", "| trial | verdict | s | commit | measured |", "|---|---|---|---|---|"]
    for name, trial in trials.items():
        measured = "; ".join(f"{key}: {value}" for key, value in trial["measured"].items()) or trial["note"]
        measured = measured.replace("|", "\\|").replace("\n", " ")
        verdict = "**failed**" if trial["verdict"] == "failed" else trial["verdict"]
        lines.append(f"| {name} | {verdict} | {trial['seconds']:.0f} | {trial['commit']} | {measured} |")
    for name, trial in trials.items():
        if trial["faults"]:
            lines += ["", f"## Faults: {name}", ""]
            lines += [f"- {' '.join(fault.split())}" for fault in trial["faults"][:10]]
            lines += [f"- and {len(trial['faults']) - 10} more"] if trial["faults"][10:] else []
    lines += ["", "## Commands", ""]
    for name, trial in trials.items():
        lines += [f"{name}, seed {trial['seed']}:", "", "```", *trial["commands"][:4], "```", ""]
    return "\n".join(lines).rstrip() + "\n"


@dataclass(frozen=True)
class TortureConfig:
    """Which trials."""

    out: Path = option("exp/torture", "folder of the report; runs and data are made in OUT/work")
    only: tuple[str, ...] = option(
        (), "trials to run, of those above; none: all", choices=tuple(TRIALS), metavar="NAME"
    )
    kills: int = option(20, "processes killed in each kill_ and data_ trial", low=1)
    steps: int = option(2000, "of long_run", low=100)
    seed: int = option(0, "of the moments; what the machine does in them is not repeatable", low=0)


def main() -> None:
    """Run the trials."""
    cfg = parse_config(TortureConfig)
    if not sys.platform.startswith("linux"):
        raise InputError("torture.py reads /proc: it needs Linux")
    out, only = cfg.out.resolve(), cfg.only or tuple(TRIALS)
    path, trials = out / "torture.json", {}
    if path.is_file():
        try:
            trials = json.loads(path.read_text(encoding="utf-8"))["trials"]
        except (ValueError, LookupError, TypeError):
            raise InputError(f"{path} is damaged; delete it or choose another --out") from None
    print("making the data set", flush=True)
    sizes = ["--size", "64x96", "--train", "6", "--test", "2", "--workers", "2"]
    words = [sys.executable, "scripts/make_demo_data.py", "--out", str(out / "work" / "GOPRO"), *sizes]
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for number, name in enumerate(only, 1):
        print(f"{number} of {len(only)}: {name}", flush=True)
        trials[name] = result = run_trial(name, out, cfg.kills, cfg.steps, cfg.seed)
        trials = {name: trials[name] for name in TRIALS if name in trials}
        write_json(path, {"trials": trials})
        write_text(out / "torture.md", report(trials))
        print(f"    {result['verdict']} in {result['seconds']:.0f} s", flush=True)
        for fault in result["faults"][:5]:
            print(f"    {fault}", flush=True)
    print(out / "torture.md")
    if any(trials[name]["verdict"] == "failed" for name in only):
        raise SystemExit(1)


if __name__ == "__main__":
    command(main)
