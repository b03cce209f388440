"""The table of what adapting changed."""

import json

import numpy as np
import pytest

from codes.image import write_image
from codes.inference.opening import Capture
from codes.report.adapted import NOTHING, beside, report

BEFORE = {"a": {"agreement": 20.0, "reblur": 30.0}, "b": {"agreement": 22.0, "reblur": 34.0}}


@pytest.mark.parametrize(("gain", "gained"), [(0.5, True), (-0.5, False)])
def test_means_come_first_and_no_gain_is_said(gain, gained, tmp_path):
    after = {name: {key: value + gain for key, value in values.items()} for name, values in BEFORE.items()}
    table = report(tmp_path, BEFORE, after, [], {})
    assert table.rows[0] == ["mean", 21, 21 + gain, 32, 32 + gain] and table.rows[2][0] == "b"
    assert (NOTHING in table.notes) != gained and (NOTHING in (tmp_path / "index.html").read_text()) != gained
    assert len(json.loads((tmp_path / "adapted.json").read_text())["rows"]) == 3


def test_a_capture_shows_before_and_after(tmp_path):
    blur, spike = np.zeros((16, 16, 3), np.uint8), np.zeros((137, 4, 4), np.uint8)
    for when in ("before", "after"):
        write_image(tmp_path / when / "068.png", blur)
    view = beside(tmp_path / "before", tmp_path / "after", Capture(blur, spike, slice(20, 117)), [68], "a")
    names = [layer.name for layer in view.layers]
    assert [names[view.first[side]] for side in ("left", "right")] == ["Before", "Adapted"]
    assert view.layers[2].images == [tmp_path / "after/068.png"] and names[view.first["third"]].startswith("Spikes")
