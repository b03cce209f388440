r"""Training curves of one or several runs in one picture.

    python scripts/plot_runs.py exp/test
    python scripts/plot_runs.py log/photo/BSN log/photo/SR log/photo/Deblur --log --out curves.png --csv curves.csv

A panel for the training loss, for each of its parts, and for each metric of the evaluations; the runs have colours, the
rows of an evaluation line styles. What was logged is drawn faintly, its running mean firmly. Runs may be of different
stages and may still be going on. The same in Python: codes.report.plots.plot_runs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import Parser, command  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.report.plots import X_LABELS, plot_runs  # noqa: E402
from scripts.make_demo_data import at_least  # noqa: E402


def make_parser() -> Parser:
    """Every flag with its default."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, which holds metrics.jsonl")
    add("--out", type=Path, default="runs.png", metavar="FILE", help="the picture: .png, .pdf or .svg")
    add("--csv", default="", metavar="FILE", help="also write every point, with its running mean")
    add("--keys", nargs="+", default=[], metavar="KEY", help="quantities (loss, tea, reblur, lr, psnr, ...); none: all")
    add("--smooth", type=at_least(1), default=20, metavar="N", help="logged lines in the running mean; 1: none")
    add("--x", choices=tuple(X_LABELS), default="step", help="epoch: the mean over each epoch is drawn")
    add("--log", action="store_true", help="logarithmic axes of the training quantities")
    add("--log_x", action="store_true", help="logarithmic x axes")
    return parser


def main() -> None:
    """Draw."""
    args = make_parser().parse_args()
    if args.out.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"--out {args.out}; expected a name that ends in .png, .pdf or .svg")
    log = "y" * args.log + "x" * args.log_x
    plot_runs(args.runs, args.out, args.csv, keys=args.keys, x=args.x, smooth=args.smooth, log=log)
    print(" and ".join(str(path) for path in (args.out, args.csv) if str(path)))


if __name__ == "__main__":
    command(main)
