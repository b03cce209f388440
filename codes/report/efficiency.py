"""What networks cost on the machine at hand: parameters, multiply-adds, peak memory, time."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from codes.engine.device import autocast, describe
from codes.exposure import EXPOSURE
from codes.report.measuring import FlopCounter, timed
from codes.report.table import Table
from codes.spike import evenly, tfp

PUBLISHED = {  # parameters, GMAC at 720x1280
    "bsn": (1_118_832, 217.7),
    "edsr": (1_515_269, 113.1),
    "teacher": (None, 444.0),
    "ldn": (234_158, 15.9),
    "san": (2_421_882, None),
    "stir": (5_107_960, None),
    "spkdeblurnet": (13_464_684, 851.5),
}
ENOUGH = 10.0
"""Seconds of a run from which on it is timed once."""


@dataclass
class Entry:
    """A line of the table.

    Args:
        parameters: of its networks.
        run: computes a number of instants of one exposure.
    """

    title: str
    parameters: int
    run: Callable[[int], object]

    def work(self, instants: int) -> float:
        """Multiply-adds."""
        with FlopCounter() as counter, torch.inference_mode():
            self.run(instants)
        return counter.total / 2


def entries(methods: list, device: torch.device, height: int, width: int) -> dict[str, Entry]:
    """The networks of some methods on one frame, those of the teacher also one by one; random data.

    Args:
        methods: as in :mod:`codes.report.tables`, on ``device``; those without networks have no line.
        device: 'meta' computes nothing, but counts.
    """
    torch.manual_seed(0)
    blur = torch.rand(1, 3, height, width, device=device)
    spike = (torch.rand(1, EXPOSURE.total, height // 4, width // 4, device=device) < 0.4).to(torch.uint8)
    texture, found = tfp(spike, EXPOSURE.centre, 9), {}
    for method in methods:
        if method.name == "teacher":
            for title, network in method.networks.items():

                def one(count, network=network):
                    return [network(texture) for _ in range(count)]

                found[title.lower()] = Entry(title, sum(weight.numel() for weight in network.parameters()), one)
        if method.networks:

            def run(count, method=method):
                return method.start(blur, spike)(evenly(EXPOSURE, count))

            found[method.name] = Entry(method.title, method.parameters, run)
    return found


def efficiency_table(
    lines: dict[str, Entry],
    plain: dict[str, Entry],
    size: tuple[int, int],
    device: torch.device,
    precision: str,
    repeats: int = 5,
    peak: Callable[[str], float] | None = None,
) -> Table:
    """Count, measure and time.

    Args:
        plain: the same on the device 'meta', where networks have the form that their papers describe; as far as they
            can be counted there.
        size: ``(H, W)`` of the frame.
        repeats: times that are measured after one to warm up, unless one takes long; the median counts.
        peak: from a key of ``lines`` to the bytes at the peak of one frame; None: not measured.
    """
    height, width = size
    table = Table("efficiency", f"Cost of a {height}×{width} frame", {"Network": ""})
    table.columns |= {"parameters": ",d", "published parameters": ",d", "GMAC": ".2f", "GMAC, further instant": ".2f"}
    table.columns |= {
        "GMAC as written": ".2f",
        "published GMAC, 720×1280": ".1f",
        "peak memory, MB": ".0f",
        "ms": ".1f",
    }
    for name, entry in lines.items():
        parameters, macs = PUBLISHED.get(name, (None, None))
        once, twice, written = entry.work(1), entry.work(2), plain[name].work(1) / 1e9 if name in plain else None
        with torch.inference_mode(), autocast(device, precision):
            seconds = [timed(lambda entry=entry: entry.run(1), device)]
            if seconds[0] < ENOUGH:
                seconds = [timed(lambda entry=entry: entry.run(1), device) for _ in range(repeats)]
        row = [entry.title, entry.parameters, parameters, once / 1e9, (twice - once) / 1e9, written, macs]
        table.rows.append([*row, peak(name) / 1e6 if peak else None, 1000 * statistics.median(seconds)])
    table.protocol = [
        f"one {height}×{width} image, batch 1, whole frame, one instant with what its exposure shares, median of "
        f"{repeats} after one to warm up",
        f"{precision} on {describe(device)}",
    ]
    table.notes += [
        "GMAC: multiply-adds of convolutions and matrix products as executed (torch's flop counter / 2); 'as written': "
        "layer by layer, as the papers count",
        "published: counted layer by layer from the authors' program",
        "peak memory: beyond what the program holds before the frame, weights and inputs included",
        "training: the authors' logs have 83 s (BSN), 20 s (EDSR) and 227 s (LDN) an epoch, on a GPU that they do not "
        "name; scripts/dev/benchmark.py times steps, and each line of a run's metrics.jsonl has its seconds",
    ]
    return table
