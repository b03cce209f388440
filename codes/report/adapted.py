"""What adapting a network to captures changed: a table and a page, before and after side by side."""

from collections.abc import Sequence
from pathlib import Path

from codes.report.page import Layer, Page, Section, View, capture_view, made_by, of_views
from codes.report.table import Table

FIGURES = {"agreement": "withheld spikes", "reblur": "reblur"}
NOTES = [
    "PSNR in dB, higher is better; no sharp image is known. Choose a capture to see its frames before and after",
    "Withheld spikes: both networks were given the captures without the spikes of one pixel in 25; their frames are "
    "compared with what these pixels saw between two instants. The noise of spikes is in that figure: it "
    "compares before with after, not one capture with another",
    "Reblur: the mean of the frames against the blurry photo, which would itself be perfect: it says whether something "
    "was lost or invented, not whether anything was gained",
]


NOTHING = "The adapted weights agree no better with the withheld spikes: nothing was gained, stay with those you had"


def beside(before: Path, after: Path, capture, instants: Sequence[int], name: str) -> View:
    """What the viewer shows of a capture.

    Args:
        before, after: folders of its frames, ``{instant:03}.png``.
        capture: has ``picture``, ``spike`` and ``notes`` (:class:`codes.inference.opening.Capture`).
        instants: of the frames.
        name: of the capture.
    """
    view = capture_view(before, capture.picture, capture.spike, instants, "Before", name=name, notes=capture.notes)
    view.layers.insert(2, Layer("Adapted", [after / f"{instant:03}.png" for instant in instants]))
    view.first = {"left": 1, "right": 2, "third": len(view.layers) - 1}
    return view


def report(out: Path, before: dict, after: dict, views: list[View], about: dict[str, str]) -> Table:
    """Write ``index.html``, ``adapted.md``, ``.csv`` and ``.json``.

    Args:
        out: folder.
        before, after: capture -> figures (:data:`FIGURES`).
        views: of the captures.
        about: what was run, on what.

    Returns:
        The table; its first row is the mean.
    """
    columns = {"": ""} | {f"{text}, {when}": ".2f" for text in FIGURES.values() for when in ("before", "after")}
    table = Table("adapted", "Before and after", columns, notes=NOTES)
    for name, values in before.items():
        table.rows.append([name, *(value for key in FIGURES for value in (values[key], after[name][key]))])
    means = [sum(column) / len(before) for column in list(zip(*table.rows, strict=True))[1:]]
    table.rows.insert(0, ["mean", *means])
    if means[1] <= means[0]:
        table.notes = [*NOTES, NOTHING]
    table.write(out, "md", "csv", "json")
    section = Section("Before and after", table, of_views(views))
    Page("Adapted to own captures", [section], about=about | made_by()).write(out / "index.html")
    return table
