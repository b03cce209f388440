"""A table of figures, and the four forms in which it is written: Markdown, CSV, JSON, LaTeX."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from codes.files import as_json, write_text

METRICS = {"psnr": ("PSNR", ".2f"), "ssim": ("SSIM", ".3f"), "mse": ("MSE", ".5f"), "lpips": ("LPIPS", ".3f")}
"""Title and format of each metric, in the order of the tables. PSNR is in dB."""


@dataclass
class Table:
    """A table as it is printed and written.

    Args:
        name, title: of the files; above the table.
        columns: header -> format of its numbers, such as '.2f'; '' is text.
        rows: one value or None for each column.
        protocol, notes: sentences below it.
        about: what the JSON says beside it.
        sections: what stands below it on a page (:class:`codes.report.page.Section`).
    """

    name: str
    title: str
    columns: dict[str, str]
    rows: list[list] = field(default_factory=list)
    protocol: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    about: dict = field(default_factory=dict)
    sections: list = field(default_factory=list)

    def cells(self) -> list[list[str]]:
        """The rows as text; '–' where there is no value."""
        return [
            ["–" if x is None else format(x, f) for x, f in zip(row, self.columns.values(), strict=True)]
            for row in self.rows
        ]

    def markdown(self) -> str:
        """The table in Markdown, with protocol and notes."""
        lines = [list(self.columns), ["---"] * len(self.columns), *self.cells()]
        body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        below = [f"Protocol: {'; '.join(self.protocol)}.", ""] if self.protocol else []
        below += [f"- {note}" for note in self.notes]
        return "\n".join([f"### {self.title}", "", *body, "", *below]).rstrip() + "\n"

    def latex(self) -> str:
        """The table in LaTeX, without packages; protocol and notes as comments."""
        known = {"\\": "\\textbackslash{}", "–": "--", "×": "$\\times$", "~": "\\textasciitilde{}"}
        known |= {sign: "\\" + sign for sign in "&%$#_{}"}

        def line(cells):
            return " & ".join("".join(known.get(sign, sign) for sign in cell) for cell in cells) + " \\\\"

        about = [f"% {text}" for text in (self.title, *self.protocol, *self.notes)]
        sides = "".join("r" if kind else "l" for kind in self.columns.values())
        body = [line(self.columns), "\\hline", *map(line, self.cells())]
        return "\n".join([*about, f"\\begin{{tabular}}{{{sides}}}", *body, "\\end{tabular}"]) + "\n"

    def csv(self) -> str:
        """The numbers, unrounded, with commas between; nothing where there is no value."""
        text = io.StringIO()
        csv.writer(text).writerows([list(self.columns), *self.rows])
        return text.getvalue()

    def json(self) -> str:
        """The rows as objects of unrounded numbers, with all that is known about them."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        values = {"table": self.name, "title": self.title, "rows": rows, "protocol": self.protocol, "notes": self.notes}
        return as_json(values | self.about)

    def write(self, folder: Path, *forms: str) -> None:
        """Write ``folder/name.md``, ``.csv``, ``.json`` and ``.tex``, or those of the four that are named."""
        made = {"md": self.markdown, "csv": self.csv, "json": self.json, "tex": self.latex}
        for form in forms or made:
            write_text(folder / f"{self.name}.{form}", made[form]())
