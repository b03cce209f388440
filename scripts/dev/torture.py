"""Does a run survive what machines do to it? kill -9, full disks, lost data, a second process, a long run.

    python scripts/dev/torture.py --out exp/torture
    python scripts/dev/torture.py --out exp/torture --only kill_sr data_prepare --kills 50

The scripts are run as a user runs them, on a tiny data set made here, and disturbed from outside. What comes out in the
end is compared bit for bit with what an undisturbed run leaves. Each trial's verdict is kept in torture.json, so that
trials can be run one by one; torture.md is the table of all of them. Exit code 1 if a trial of this call failed. Linux.

    kill_bsn, kill_sr, kill_deblur, kill_textures, kill_student, kill_stir    training is killed at random moments and
                      started again; deblur and textures with --cache, textures also with --teacher_cache
    data_demo, data_prepare, data_cache, data_resimulate      the same for the scripts that make data
    full_disk, read_only, lost_data, bad_sample      the disk or the data fail in the middle of training; the first two
                      as root only, who may mount
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
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shlex import quote

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

# A run that saves, logs and evaluates as often as it can. {data}: the tiny data set; {here}: the trial's folder;
# {run}: the folder that is compared. Of an option that is given twice the last one counts.
TINY = (
    " --base_folder {data} --save_folder {run} --device cpu --workers 1 --roi_size 16 --bs 2 --train_split train"
    " --state_every 0 --log_every 1 --eval_every 7 --eval_images 1"
)
DEBLUR = "train_deblur.py" + TINY + " --teacher sdm --tea_loss l1"

KILLED = {
    "kill_bsn": "train_bsn.py" + TINY + " --max_steps 60",
    "kill_sr": "train_sr.py" + TINY + " --max_steps 60",
    "kill_deblur": DEBLUR + " --max_steps 90 --cache {run}/cache",
    "kill_textures": DEBLUR + " --max_steps 90 --cache {run}/cache --teacher_cache {run}/teacher_cache",
    "kill_student": "scripts/train_student.py" + TINY + " --train_vth 1 --precision fp32 --max_steps 60",
    "kill_stir": "scripts/baselines/train_stir.py" + TINY + " --roi_size 64 --no-perceptual --max_steps 24",
    "data_demo": "scripts/make_demo_data.py --size 64x96 --train 10 --test 4 --vth 1 2 --workers 2 --out {run}",
    "data_prepare": "scripts/prepare_gopro.py --raw_folder {here}/video --vth 1 2 --multi --workers 2 --out {run}",
    "data_cache": "scripts/cache_dataset.py --base_folder {here}/data --workers 1 --cache {run}",
    "data_resimulate": "scripts/resimulate.py --base_folder {data} --shrink 1 --size 64x96 --count 12 --motion 1 10"
    " --device cpu --workers 2 --out {run}",
}
LARGE_DATA = "scripts/make_demo_data.py --out {here}/data --size 360x640 --train 30 --test 10 --workers 2"
"""Of data_cache: so large that writing them takes time."""
DISTURBED = {  # what befalls a run, and what mends it
    "full_disk": ("true", "rm {run}/filler"),
    "read_only": ("mount --bind -o ro {run}/test {run}/test", "umount -l {run}/test"),
    "lost_data": ("mv {here}/GOPRO {here}/elsewhere", "mv {here}/elsewhere {here}/GOPRO"),
    "bad_sample": ("truncate -s 900 {here}/GOPRO/train/blur_data/0001_*/*.png", "cp -r {data}/. {here}/GOPRO"),
}
OWN = ("state.pth", "config.yml", "opt.txt")
"""Files of a run folder that an interruption may change, or that name the folder."""
LIMIT = 300.0
"""Seconds after which a process counts as hanging."""
GRACE = 10.0
"""Seconds that the other processes of a killed one have to end."""
LEAK = 2.0
"""MB per 1,000 steps that count as a leak."""


# What a command leaves --------------------------------------------------------------------------------------------


def temporaries(folder: Path) -> set[Path]:
    """Temporary files that lie below a folder."""
    return {path for path in folder.rglob(".*.tmp*") if path.is_file()}


def left_in(folder: Path) -> list[str]:
    """Each temporary file is a fault."""
    return [f"temporary file left: {path}" for path in temporaries(folder)]


def contents(folder: Path) -> dict[str, object]:
    """What lies below a folder, name -> value, but for what may differ between two runs of a command.

    That is in logs the folder, seconds and milliseconds, what each start says of --teacher_cache, and the last line: a
    run that is killed after its state says that it is finished has none.
    """
    found: dict[str, object] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name.startswith(".") or path.name in OWN or path.parent.name == "tensorboard":
            continue
        if path.suffix == ".pth":
            weights = torch.load(path, weights_only=True)
            found[name] = [(key, value.dtype, value.numpy().tobytes()) for key, value in weights.items()]
        elif path.name in ("metrics.jsonl", "results.txt"):
            text = path.read_text(encoding="utf-8").replace(str(path.parent), "RUN")
            text = re.sub(r'"seconds": [\d.e-]+|\d+ ms each$', "", text, flags=re.MULTILINE)
            text = re.sub(r"^(teacher cache: .*|finished at step .*)\n", "", text, flags=re.MULTILINE)
            found |= {f"{name}, line {number}": line for number, line in enumerate(text.split("\n"), 1)}
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def events(board: Path) -> dict[str, object]:
    """The scalars of a TensorBoard folder: name -> (step, value)s as it would show them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes a second

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # that it purges is what is wanted
    read = EventAccumulator(str(board), size_guidance={"scalars": 0})
    if board.is_dir():
        read.Reload()
    return {
        f"TensorBoard, {tag}": [(event.step, event.value) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def differences(expected: Path, found: Path) -> list[str]:
    """What a disturbed command left otherwise than the undisturbed one, in words; temporary files are too much."""
    want, have = (contents(folder) | events(folder / "test" / "tensorboard") for folder in (expected, found))
    faults = [f"{found}: {name} is missing" for name in want.keys() - have.keys()]
    faults += [f"{found}: {name} is one too many" for name in have.keys() - want.keys()]
    changed = [name for name in want.keys() & have.keys() if want[name] != have[name]]
    faults += [f"{found}: {name} differs: {str(have[name])[:80]}" for name in changed]
    faults += left_in(found)
    return sorted(faults) if want else [f"{expected} is empty"]


def bad_ending(code: int, errors: str) -> list[str]:
    """Whether a process that had to give up did so with one line and an exit code of its own."""
    lines = [line for line in errors.splitlines() if line.strip()]
    faults = [] if code > 0 else [f"exit code {code}, expected one above 0"]
    if len(lines) != 1:
        faults.append(f"{len(lines)} lines on stderr instead of one: {' | '.join(lines[:2] + lines[-2:])[:600]}")
    return faults


def trained(folder: Path) -> int:
    """Training steps that a run in the folder has logged so far."""
    with suppress(OSError):
        return (folder / "test" / "metrics.jsonl").read_bytes().count(b'"kind": "train"')
    return 0


def made(folder: Path) -> int:
    """Whole files below a folder so far."""
    return sum(not name.startswith(".") for _, _, names in os.walk(folder) for name in names)


# Processes --------------------------------------------------------------------------------------------------------


class Child(subprocess.Popen):
    """A started command in a session of its own, with one thread: threads that wait for one another are slow."""

    def __init__(self, words: list[str], errors: Path):
        self.errors_path, self.begun = errors, time.monotonic()
        with open(errors, "w", encoding="utf-8") as stderr:
            super().__init__(
                [sys.executable, *words],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it wrote to stderr."""
        return self.errors_path.read_text(encoding="utf-8", errors="replace").strip()

    def until(self, happened: Callable[[], object] = lambda: False, pause: float = 0.01) -> bool:
        """Wait until something has happened (True) or the process has ended."""
        while self.poll() is None:
            if happened():
                return True
            if time.monotonic() - self.begun > LIMIT:
                raise TimeoutError(f"it hangs: {' '.join(self.args[1:])}")
            time.sleep(pause)
        return False

    def run_for(self, seconds: float) -> None:
        """Let it run for so long, or to its end."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, 0.003)

    def strike(self, group: bool = True) -> bool:
        """Kill -9 the process, or its whole group; whether it was still alive."""
        hit = self.poll() is None
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, signal.SIGKILL)
        self.wait()
        return hit

    def alive(self) -> list[int]:
        """The living processes of its session: it and all that it started."""
        found = []
        for number in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):
                state, _, _, session = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[:4]
                if session == str(self.pid) and state not in "ZX":
                    found.append(int(number))
        return found

    def survivors(self, seconds: float = GRACE) -> list[int]:
        """Processes that it leaves behind, after so many seconds."""
        until = time.monotonic() + seconds
        while (rest := self.alive()) and time.monotonic() < until:
            time.sleep(0.05)
        return rest


# Trials -----------------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """A trial as it runs.

    Args:
        folder: its own.
        data: the tiny data set; read only.
        kills: how many processes to kill.
        steps: of a long run.
        rng: of the moments.
    """

    folder: Path
    data: Path
    kills: int
    steps: int
    rng: np.random.Generator
    commands: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    measured: dict[str, object] = field(default_factory=dict)
    skipped: str = ""
    children: list[Child] = field(default_factory=list)

    def places(self, run: Path) -> dict[str, Path]:
        """What stands for the folders in a command of the tables."""
        return {"data": self.data, "here": self.folder, "run": run}

    def start(self, line: str, run: Path, data: Path | None = None) -> Child:
        """Start a command of the table."""
        places = self.places(run) | ({"data": data} if data else {})
        words = [word.format(**places) for word in line.split()]
        self.commands.append("python " + " ".join(words))
        self.children.append(Child(words, self.folder / f"stderr{len(self.children)}.txt"))
        return self.children[-1]

    def succeed(self, child: Child) -> int:
        """Wait for the end of a process, which must succeed; the exit code."""
        child.until(pause=0.05)
        if child.returncode:
            self.faults.append(f"exit code {child.returncode}: {child.said[-300:]}")
        return child.returncode

    def sweep(self) -> None:
        """Leave no process behind; one that must be ended here is a fault."""
        for child in self.children:
            if rest := child.alive():
                self.faults.append(f"{len(rest)} processes were still alive at the end of the trial")
                child.strike()


def kill_often(trial: Trial, line: str, progress: Callable[[Path], int]) -> None:
    """Run a command undisturbed, then kill it and start it again, and compare.

    A quarter of the kills come at a random moment of the start-up, the others after new output: half of these at a
    random moment, half as soon as a temporary file is seen. A run that ends before it is killed as often as it should
    be is compared, and another one is begun.

    Args:
        line: the command.
        progress: a number that grows with the work in a folder.
    """
    quiet = trial.folder / "undisturbed"
    child = trial.start(line, quiet)
    child.until(lambda: progress(quiet))
    startup = time.monotonic() - child.begun
    if trial.succeed(child):
        return
    work = time.monotonic() - child.begun - startup

    def disturbed(folder: Path) -> Child:
        """Start it and wait for the moment to kill it."""
        before, old = progress(folder), temporaries(folder)
        child, kind = trial.start(line, folder), trial.rng.random()
        if kind < 1 / 4:
            child.run_for(startup * trial.rng.random())
            return child
        child.until(lambda: progress(folder) > before, 0.003)
        if kind < 5 / 8:
            child.run_for(2 * work / trial.kills * trial.rng.random())
        else:
            child.until(lambda: temporaries(folder) - old, 0.0005)
        return child

    kills, caught, launches, runs = 0, 0, 0, 0
    while kills < trial.kills and launches < 3 * trial.kills:
        runs, ended = runs + 1, False
        folder = trial.folder / f"round{runs}"
        while not ended:
            launches += 1
            old = temporaries(folder)
            child = disturbed(folder) if kills < trial.kills else trial.start(line, folder)
            if kills < trial.kills and child.strike():
                kills += 1
                caught += bool(temporaries(folder) - old)
                if child.said:
                    trial.faults.append(f"a killed process had written to stderr: {child.said[-200:]}")
            else:
                ended = True
                trial.succeed(child)
            if rest := child.survivors():
                trial.faults.append(f"{len(rest)} processes lived on for {GRACE:g} s after their group was killed")
        print(f"    round {runs}: {kills} of {trial.kills} kills", flush=True)
        trial.faults += differences(quiet, folder)
    trial.measured |= {
        "kills that hit a living process": kills,
        "... while a temporary file was there": caught,
        "launches": launches,
        "runs": runs,
        "start-up / work of the undisturbed run": f"{startup:.1f} s / {work:.1f} s",
    }
    trial.faults += left_in(trial.data)
    if kills < trial.kills:
        trial.faults.append(f"only {kills} of {trial.kills} kills hit a living process: the trial says little")


def kill(trial: Trial, name: str) -> None:
    """A command of the table is killed again and again."""
    if name == "data_prepare":
        draw_video(trial.folder / "video")
    if name == "data_cache":
        trial.succeed(trial.start(LARGE_DATA, trial.folder))
    kill_often(trial, KILLED[name], made if name.startswith("data") else trained)


def draw_video(folder: Path) -> None:
    """Two sequences of 56 frames of blurred noise that moves."""
    for sequence in ("a", "b"):
        (folder / sequence).mkdir(parents=True)
        picture = np.random.default_rng(len(sequence)).integers(0, 256, (64, 256, 3), dtype=np.uint8)
        picture = cv2.GaussianBlur(picture, (0, 0), 2)
        for index in range(56):
            cv2.imwrite(str(folder / sequence / f"{index:06}.png"), picture[:, 2 * index : 2 * index + 96])


def shell(trial: Trial, line: str, run: Path) -> None:
    """Run a command of the system, which must succeed."""
    line = line.format(**{key: quote(str(path)) for key, path in trial.places(run).items()})
    subprocess.run(line, shell=True, check=True, capture_output=True, text=True)


def resume_after(trial: Trial, name: str) -> None:
    """Training starts, something goes wrong, the process must end with one line; mended, the run must end as ever."""
    spoil, mend = DISTURBED[name]
    data = shutil.copytree(trial.data, trial.folder / "GOPRO")
    line, steps = DEBLUR + " --max_steps 240 --eval_every 20", 240
    whole, folder = trial.folder / "undisturbed", trial.folder / "disturbed"
    folder.mkdir(exist_ok=True)
    trial.succeed(trial.start(line, whole, data))
    child = trial.start(line, folder, data)
    if not child.until(lambda: trained(folder) >= 30):
        trial.faults.append(f"it ended before it was disturbed: {child.said[-300:]}")
        return
    shell(trial, spoil, folder)
    try:
        give_up(trial, name, folder, child, steps)
    finally:
        shell(trial, mend, folder)
    trial.succeed(trial.start(line, folder, data))
    trial.faults += differences(whole, folder)


def give_up(trial: Trial, name: str, folder: Path, child: Child, steps: int) -> None:
    """Wait for the end of a disturbed run, which must say why, and leave its last state and nothing half-written."""
    begun, step = time.monotonic(), trained(folder)
    if name == "full_disk":
        child.until(fill(folder))
        trial.measured["free bytes at its end"] = shutil.disk_usage(folder).free
    child.until()
    trial.measured["seconds until it gave up"] = round(time.monotonic() - begun, 1)
    trial.measured["what it said"] = child.said[-300:]
    trial.faults += bad_ending(child.returncode, child.said)
    if rest := child.survivors():
        trial.faults.append(f"{len(rest)} loader processes outlived it")
    try:
        saved = torch.load(folder / "test" / "ckpts" / "state.pth", map_location="cpu", weights_only=True)["step"]
    except Exception as error:  # whatever torch raises, the state is not intact
        trial.faults.append(f"state.pth cannot be loaded: {type(error).__name__} {error}")
    else:
        trial.measured["disturbed at step / state.pth of step"] = f"{step} / {saved}"
        if not step - 2 <= saved < steps:
            trial.faults.append(f"state.pth is of step {saved}, disturbed at step {step}")
    trial.faults += left_in(folder) if name != "read_only" else []  # where nothing can be removed


def fill(folder: Path) -> Callable[[], None]:
    """What fills a disk by and by, also the room that is freed on it."""

    def more() -> None:
        with suppress(OSError), open(folder / "filler", "ab", buffering=0) as file:
            file.write(bytes(2**18))

    return more


def full_disk(trial: Trial) -> None:
    """The disk is full: the run folder lies on a small one."""
    folder = trial.folder / "disturbed"
    folder.mkdir()
    shell(trial, "mount -t tmpfs -o size=24m tmpfs {run}", folder)
    try:
        resume_after(trial, "full_disk")
    finally:
        shell(trial, "umount -l {run}", folder)


def two_processes(trial: Trial) -> None:
    """A second process in a run folder is refused, by the number of the first; the folder of a killed one is free."""
    line, whole, folder = (
        DEBLUR + " --max_steps 240 --eval_every 0",
        trial.folder / "undisturbed",
        trial.folder / "shared",
    )
    trial.succeed(trial.start(line, whole))
    for _ in range(3):
        before, first = trained(folder), trial.start(line, folder)
        if not first.until(lambda before=before: trained(folder) > before, 0.003):
            trial.faults.append(f"the first had ended before the second came: {first.said[-300:]}")
            break
        os.killpg(first.pid, signal.SIGSTOP)  # it must not finish while the second starts
        second = trial.start(line, folder)
        second.until(pause=0.05)
        trial.measured["what the second said"] = re.sub(r"number \d+", "number N", second.said[-300:])
        trial.faults += bad_ending(second.returncode, second.said)
        if f"number {first.pid})" not in second.said:
            trial.faults.append(f"the second did not name process {first.pid}: {second.said[-300:]}")
        if not first.strike():
            trial.faults.append("the first had ended before it was killed: the trial says little")
    trial.succeed(trial.start(line, folder))
    trial.faults += differences(whole, folder)


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


def slope(steps: list[float], values: list[float]) -> float:
    """Growth of the values per 1,000 steps over their second half, by least squares."""
    half = len(steps) // 2
    return float(np.polyfit(steps[half:], values[half:], 1)[0] * 1000)


def long_run(trial: Trial) -> None:
    """Memory and open files over 2,000 steps; on the GPU where there is one, with its memory."""
    options = " --device auto --workers 2 --eval_every 40 --state_every 5 --log_every 5"
    child = trial.start(f"{DEBLUR}{options} --max_steps {trial.steps}", trial.folder)
    steps, looks, gpu, parts = [], [], [], []
    child.until(lambda: trained(trial.folder) >= 5)

    def look() -> None:
        parts[:] = parts or sorted(child.alive(), key=lambda pid: pid != child.pid)  # the parent first
        row = [held(pid) for pid in parts]
        if None not in row:
            steps.append(5 * trained(trial.folder))
            looks.append(row)
            gpu.append(gpu_memory())

    child.until(look, 1.0)
    trial.succeed(child)
    if len(looks) < (10 if trial.steps >= 1000 else 1):
        trial.faults.append(f"only {len(looks)} looks at the memory: the trial says little")
        return
    trial.measured["steps, looks"] = f"{trial.steps}, {len(looks)}"

    def follow(name: str, mb: list[float]) -> None:
        grown = slope(steps, mb)
        trial.measured[f"{name}: MB at start, half-way, end"] = f"{mb[0]:.1f}, {mb[len(mb) // 2]:.1f}, {mb[-1]:.1f}"
        trial.measured[f"{name}: MB per 1,000 steps, second half"] = round(grown, 3)
        if grown > LEAK and trial.steps >= 1000:  # fewer say nothing
            trial.faults.append(f"{name} grows by {grown:.1f} MB per 1,000 steps")

    if None not in gpu:
        follow("GPU", gpu)
    for index, values in enumerate(zip(*looks, strict=True)):
        name = f"loader process {index}" if index else "parent"
        megabytes, opened = zip(*values, strict=True)
        follow(name, megabytes)
        trial.measured[f"{name}: open files at start, end"] = f"{opened[0]}, {opened[-1]}"
        if opened[-1] > opened[0] + 3:
            trial.faults.append(f"{name} has {opened[-1]} open files, {opened[0]} at the start")
    trial.faults += left_in(trial.folder)


def orphans(trial: Trial) -> None:
    """Loader processes end when their parent is killed."""
    child = trial.start(DEBLUR + " --workers 3 --max_steps 100000 --eval_every 0", trial.folder)
    child.until(lambda: trained(trial.folder) >= 10)
    trial.measured["loader processes"] = count = len(child.alive()) - 1
    if count != 3:
        trial.faults.append(f"{count + 1} processes, expected a parent and 3 loader processes")
    child.strike(group=False)
    begun = time.monotonic()
    if rest := child.survivors():
        trial.faults.append(f"{len(rest)} loader processes live on {GRACE:g} s after their parent")
    trial.measured["seconds until the last had ended"] = round(time.monotonic() - begun, 1)


def determinism(trial: Trial) -> None:
    """The number of loader processes changes nothing."""
    runs = [trial.folder / f"workers{workers}" for workers in range(4)]
    for workers, run in enumerate(runs):
        trial.succeed(trial.start(f"{DEBLUR} --max_steps 90 --workers {workers}", run))
    for run in runs[1:]:
        trial.faults += differences(runs[0], run)


TRIALS: dict[str, Callable[[Trial], None]] = {
    **{name: partial(kill, name=name) for name in KILLED},
    **{name: partial(resume_after, name=name) for name in DISTURBED},
    "full_disk": full_disk,
    **{run.__name__: run for run in (two_processes, long_run, orphans, determinism)},
}


# Report -----------------------------------------------------------------------------------------------------------


def run_trial(name: str, out: Path, cfg: "TortureConfig") -> dict:
    """Run a trial in a folder of its own; what becomes of it."""
    folder = out / "work" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    moments = np.random.default_rng((cfg.seed, *name.encode()))
    trial = Trial(folder, out / "work" / "GOPRO", cfg.kills, cfg.steps, moments)
    begun = time.monotonic()
    try:
        if name in ("full_disk", "read_only") and os.geteuid() != 0:
            trial.skipped = "only root can mount, which this needs"
        else:
            TRIALS[name](trial)
    except (OSError, ValueError, RuntimeError, LookupError, subprocess.SubprocessError) as error:
        trial.faults.append(f"the trial broke off: {type(error).__name__}: {error}")
    finally:
        trial.sweep()
    verdict = "failed" if trial.faults else "skipped" if trial.skipped else "passed"
    if verdict == "passed":
        shutil.rmtree(folder, ignore_errors=True)
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    _, commit, versions = provenance()
    result = {
        "verdict": verdict,
        "seconds": round(time.monotonic() - begun, 1),
        "commit": commit.removeprefix("commit: "),
        "machine": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": versions,
        "seed": cfg.seed,
        "note": trial.skipped,
        "measured": trial.measured,
        "faults": list(dict.fromkeys(trial.faults)),
        "commands": list(dict.fromkeys(trial.commands)),
    }
    return json.loads(json.dumps(result).replace(str(out), "OUT").replace(str(ROOT), "."))  # not this machine's folders


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
        trials[name] = result = run_trial(name, out, cfg)
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
