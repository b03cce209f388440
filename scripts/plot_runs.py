r"""Training curves of one or several runs in one picture.

    python scripts/plot_runs.py exp/test
    python scripts/plot_runs.py log/photo/BSN log/photo/SR log/photo/Deblur --log --out curves.png --csv curves.csv

A panel for the training loss, for each of its parts, and for each metric of the evaluations; the runs have colours, the
rows of an evaluation line styles. What was logged is drawn faintly, its running mean firmly. Runs may be of different
stages and may still be going on. Without --out the picture is curves.png in the folder of the first run; a name that
ends in .html makes a page of plots to look into. The same in Python: codes.report.plots.plot_runs.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command
from codes.engine.options import option, parse_config
from codes.errors import InputError


@dataclass(frozen=True)
class PlotConfig:
    """Which runs, and what of them."""

    runs: tuple[Path, ...] = option(..., "folders of runs, which hold metrics.jsonl", positional=True, metavar="RUN")
    out: Path | None = option(
        None, "the picture: .png, .pdf or .svg, or a page: .html (default: curves.png in the first run's folder)"
    )
    csv: Path | None = option(None, "also write every point, with its running mean")
    keys: tuple[str, ...] = option((), "quantities (loss, tea, reblur, lr, psnr, ...); none: all", metavar="KEY")
    smooth: int = option(20, "logged lines in the running mean; 1: none", low=1)
    x: Literal["step", "epoch", "hours"] = option("step", "epoch: the mean over each epoch is drawn")
    log: bool = option(False, "logarithmic axes of the training quantities")
    log_x: bool = option(False, "logarithmic x axes")

    def __post_init__(self):
        if self.out and self.out.suffix not in (".png", ".pdf", ".svg", ".html"):
            raise InputError(f"--out {self.out}; expected a name that ends in .png, .pdf, .svg or .html")


def main(argv: list[str] | None = None) -> None:
    """Draw."""
    cfg = parse_config(PlotConfig, argv)
    from codes.report.plots import plot_runs

    out = cfg.out or cfg.runs[0] / "curves.png"
    log = "y" * cfg.log + "x" * cfg.log_x
    plot_runs(cfg.runs, out, cfg.csv or "", keys=cfg.keys, x=cfg.x, smooth=cfg.smooth, log=log)
    print(" and ".join(str(path) for path in (out, cfg.csv) if path))


if __name__ == "__main__":
    command(main)
