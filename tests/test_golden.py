"""The compact reference values: what is known of them is compared, and they are what the script makes of all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.dev import thin_golden
from tests.conftest import COMPACT, known


@pytest.mark.slow
@pytest.mark.parametrize("compare", [np.testing.assert_allclose, np.testing.assert_array_equal])
def test_what_is_known_is_compared(compare, tmp_path):
    """One value wrong, at each place in turn: noticed where it is known, and a shape or NaN everywhere."""
    values = np.random.default_rng(0).random((2, 3, 6, 8)).astype(np.float32)
    step, kept = 5, values.ravel()[::5]
    np.savez(tmp_path / "a.npz", out=kept, whole=values, **{"out:thinned": np.array([step, *values.shape])})
    expected = known(tmp_path / "a.npz")
    assert list(expected) == ["out", "whole"] and expected["out"].shape == values.shape
    np.testing.assert_array_equal(expected["whole"], values)
    compare(torch.from_numpy(values), expected["out"])
    for place in range(values.size):
        wrong = values.copy()
        wrong.ravel()[place] += 0.1 if place % 2 else np.nan
        if place % step:
            compare(wrong, expected["out"])
        else:
            with pytest.raises(AssertionError):
                compare(wrong, expected["out"])
    with pytest.raises(AssertionError):
        compare(values[:, :2], expected["out"])


@pytest.mark.slow
def test_they_are_what_the_script_makes(golden_full, tmp_path):
    thin_golden.main([str(golden_full), "--out", str(tmp_path)])
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")}
    assert files | {Path("README.md")} == {path.relative_to(COMPACT) for path in COMPACT.rglob("*.*")}
    for name in files:
        if name.suffix != ".npz":
            assert (tmp_path / name).read_bytes() == (COMPACT / name).read_bytes()
            continue
        full, compact = known(golden_full / name), known(COMPACT / name)
        assert list(full) == list(compact)
        for key, values in compact.items():
            assert values.dtype == full[key].dtype and values.shape == full[key].shape
            np.testing.assert_allclose(values, full[key], rtol=2e-7, atol=6e-6)
            if np.ma.isMaskedArray(values):
                rows = (~values.mask).reshape(-1, values.shape[-1])
                assert min(500, values.size) <= values.count() and rows.any(0).all()


def test_they_are_small():
    files = [path for path in COMPACT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000 and not [p for p in files if p.suffix == ".pth"]
