"""The four forms of a table, and JSON that every parser reads."""

import csv
import io
import json

import numpy as np

from codes.files import as_json
from codes.report.table import Table

COLUMNS = {"Method": "", "Parameters": ",d", "PSNR": ".2f"}
ROWS = [["A|B_1", 1234567, 26.891], ["50 %", None, 100.0]]


def made():
    return Table("t", "Of two", COLUMNS, [*ROWS], ["one", "two"], ["a note"], {"device": "cpu"})


def test_markdown():
    assert made().markdown() == (
        "### Of two\n\n| Method | Parameters | PSNR |\n| --- | --- | --- |\n| A\\|B_1 | 1,234,567 | 26.89 |\n"
        "| 50 % | – | 100.00 |\n\nProtocol: one; two.\n\n- a note\n"
    )


def test_latex():
    assert made().latex() == (
        "% Of two\n% one\n% two\n% a note\n\\begin{tabular}{lrr}\nMethod & Parameters & PSNR \\\\\n\\hline\n"
        "A|B\\_1 & 1,234,567 & 26.89 \\\\\n50 \\% & -- & 100.00 \\\\\n\\end{tabular}\n"
    )


def test_csv_and_json_hold_the_numbers_unrounded():
    lines = list(csv.reader(io.StringIO(made().csv(), newline="")))
    assert lines == [list(COLUMNS), ["A|B_1", "1234567", "26.891"], ["50 %", "", "100.0"]]
    table = json.loads(made().json())
    assert table["rows"] == [dict(zip(COLUMNS, row, strict=True)) for row in ROWS] and table["device"] == "cpu"


def test_forms_that_are_wanted(tmp_path):
    made().write(tmp_path, "md", "csv")
    assert {path.name for path in tmp_path.iterdir()} == {"t.md", "t.csv"}
    made().write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"t.md", "t.csv", "t.json", "t.tex"}


def test_json_is_valid_whatever_the_numbers():
    value = {"a": [float("nan"), (np.float64("inf"), 1)], "b": {"c": -float("inf")}, "d": "NaN"}
    assert json.loads(as_json(value)) == {"a": [None, [None, 1]], "b": {"c": None}, "d": "NaN"}
