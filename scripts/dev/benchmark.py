"""How fast the program is, line by line, against the plain way of the same thing on the same machine.

    python scripts/dev/benchmark.py [--device auto] [--precision fp32] [--quick] [--only TEXT] [--json FILE]

Both ways (lines.py) are checked against each other, then timed in alternation; a figure is the median of its runs, so
that the ratio holds on a noisy machine. Work is counted, not assumed: the multiply-adds of convolutions and matrix
products (2 FLOP each) as torch's counter sees them, and the bytes that a line without networks must read and write at
least. They are set against the machine's own fp32 matrix product and memory copy, measured in the same run. Lines
marked with memory are run once more in processes of their own for their peak. The plain way is always in fp32.
"""

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codes.engine.command import command
from codes.engine.options import option, parse_config
from codes.errors import InputError

LONG, VERY_LONG = 10.0, 60.0
"""Seconds of a run, from which on it is timed only once; and from which on the run that checks it must do."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is measured, and how."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")
    precision: Literal["fp32", "tf32", "bf16"] = option("fp32", "of our way")
    fast: bool = option(False, "our way in the networks' forms for a CPU, on any device")
    quick: bool = option(False, "small sizes: does it run at all; they say little about speed")
    only: str = option("", "lines whose name holds this text")
    repeats: int = option(5, "runs of each way; one of those over 10 s", low=1)
    memory: bool = option(True, "peaks of memory, where a line has them")
    json: Path | None = option(None, "also write the figures there")
    peak: Literal["", "ours", "other"] = option("", "only print the peak memory of one way of the first line")


def flat(result):
    """Tensors, arrays or numbers, or several of them, as one row of float64 on the CPU."""
    import torch

    parts = result if isinstance(result, tuple | list) else [result]
    return torch.cat([torch.as_tensor(part).detach().cpu().double().flatten() for part in parts])


def check(line, cfg: BenchmarkConfig, results: list) -> None:
    """That both ways came to the same."""
    a, b = map(flat, results)
    gap, scale = (a - b).abs().max().item(), max(b.abs().max().item(), 1.0)
    tolerance = {"fp32": line.tolerance, "tf32": max(line.tolerance, 1e-2), "bf16": 0.1}[cfg.precision]
    if not gap <= tolerance * scale:  # NaN too
        raise InputError(f"{line.name}: the two ways differ by {gap:.3g}, more than {tolerance:g} of {scale:.3g}")


def measure(line, cfg: BenchmarkConfig, device) -> dict:
    """Seconds, ratio and work of both ways, after a check that they agree."""
    from codes.report.measuring import FlopCounter, timed

    ways = {"seconds": line.ours} | ({"other": line.other} if line.other else {})
    results, row, first = [], {"line": line.name, "bytes": line.bytes}, {}
    for key, run in ways.items():
        with FlopCounter() as counter:
            first[key] = timed(lambda run=run: results.append(run()), device)
        row["flop" if key == "seconds" else "other_flop"] = counter.total
    if line.other and results[0] is not None:
        check(line, cfg, results)
    results.clear()
    runs = [first]
    if max(first.values()) < VERY_LONG:
        repeats = 1 if max(first.values()) > LONG else cfg.repeats
        runs = [{key: timed(run, device) for key, run in ways.items()} for _ in range(repeats)]
    row |= {key: statistics.median(run[key] for run in runs) for key in ways} | {"runs": len(runs)}
    if line.other:
        row["ratio"] = row["other"] / row["seconds"]
    if line.memory and cfg.memory:
        row |= {"memory": peak("ours", line.name, cfg), "other_memory": peak("other", line.name, cfg)}
    return row


def peak(way: str, name: str, cfg: BenchmarkConfig) -> float:
    """Peak memory of one way, measured in a new process."""
    words = ["--device", cfg.device, "--precision", cfg.precision, "--only", name, "--peak", way]
    words += ["--quick"] * cfg.quick + ["--fast"] * cfg.fast
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{name}: measuring its memory failed ({done.stderr.strip().splitlines()[-1]})")
    return float(done.stdout.split()[-1])


def cells(row: dict, matrix: float, copy: float) -> str:
    """A line of the table."""
    other, ratio = (f"{1e3 * row['other']:.4g}", f"{row['ratio']:.1f}×") if "ratio" in row else ("–", "–")
    work = share = memory = "–"
    if row["flop"]:
        work = f"{row['flop'] / 1e9:.3g} GFLOP"
        if abs(row.get("other_flop", row["flop"]) / row["flop"] - 1) > 0.01:
            work += f" (plain {row['other_flop'] / 1e9:.3g})"
        share = f"{row['flop'] / row['seconds'] / matrix:.0%}"
    elif row["bytes"]:
        work = f"{row['bytes'] / 1e6:.3g} MB"
        share = f"{row['bytes'] / row['seconds'] / copy:.0%}"
    if "memory" in row:
        memory = f"{row['memory'] / 1e9:.2g} GB (plain {row['other_memory'] / 1e9:.2g})"
    return f"| {row['line']} | {1e3 * row['seconds']:.4g} | {other} | {ratio} | {work} | {share} | {memory} |"


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    cfg = parse_config(BenchmarkConfig, argv)
    from codes.engine.device import choose_device, describe
    from codes.engine.provenance import provenance
    from codes.files import write_json
    from codes.report.measuring import copy_rate, matrix_rate, peak_memory
    from scripts.dev.lines import Lines

    device = choose_device(cfg.device)
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            line
            for line in Lines(device, cfg.precision, cfg.quick, Path(folder), cfg.fast)
            if cfg.only.lower() in line.name.lower()
        ]
        if not lines:
            raise InputError(f"--only {cfg.only}: no line's name holds that")
        if cfg.peak:
            print(peak_memory(getattr(lines[0], cfg.peak), device))
            return
        matrix, copy = matrix_rate(device), copy_rate(device)
        print(
            f"{describe(device)}, {cfg.precision}; fp32 matrix product {matrix / 1e9:.0f} GFLOP/s, "
            f"copy {copy / 1e9:.1f} GB/s; {provenance()[2]}\n"
        )
        print("| line | ms | plain, ms | ratio | work | share of the machine's rate | peak memory |")
        print("|---|---|---|---|---|---|---|")
        table = []
        for line in lines:
            table.append(measure(line, cfg, device))
            print(cells(table[-1], matrix, copy), flush=True)
    if cfg.json:
        about = {"device": describe(device), "precision": cfg.precision, "matrix_product": matrix, "copy": copy}
        write_json(cfg.json, about | {"about": provenance(), "lines": table})


if __name__ == "__main__":
    command(main)
