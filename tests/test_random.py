"""Random streams with a purpose."""

import itertools

import numpy as np
import pytest

from codes.random import rng
from codes.spike import EXPOSURE


def test_the_same_purpose_reproduces():
    assert np.array_equal(rng("crops", 3, 1, 2).random(50), rng("crops", 3, 1, 2).random(50))
    assert np.array_equal(rng("crops", np.int64(3), np.uint8(1)).random(5), rng("crops", 3, 1).random(5))


def test_streams_are_uncorrelated():
    """Of 10,000 numbers each: chance stays below 0.05, five standard deviations."""
    purposes = ("order", "crops", "flips", "threshold", "instants")
    streams = [(purpose, 42, *numbers) for purpose in purposes for numbers in ((), (0,), (0, 0), (1, 0), (0, 1))]
    streams += [("crops", 43, 0, 0), ("crops", 42 + 2**32, 0, 0), ("crops", 42, 2**32), ("crops", 4, 20, 0)]
    draws = [rng(*stream).random(10_000) for stream in streams]
    for (i, one), (j, two) in itertools.combinations(enumerate(draws), 2):
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.05, (streams[i], streams[j])


def test_first_draws_over_many_steps_are_uncorrelated():
    """What training does: one draw a step from each purpose; the first draws must not move together."""
    one, two = (
        np.array([rng(purpose, 42, step).random() for step in range(4000)]) for purpose in ("instants", "crops")
    )
    for shift in (0, 1, 2):
        assert abs(np.corrcoef(one[: 4000 - shift], two[shift:])[0, 1]) < 0.08
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.08
    assert one.mean() == pytest.approx(0.5, abs=0.02)


def test_crops_and_order_do_not_hang_together(tiny):
    """Sample 0's crop and the order of the epoch once shared a stream."""
    from codes.dataset import SpikeData
    from codes.engine.loader import BatchPlan

    data = SpikeData(tiny, "GOPRO", "train", use_roi=True, roi_size=32, seed=7)
    whole = SpikeData(tiny, "GOPRO", "train")[0]["blur"]
    places, firsts = [], []
    for epoch in range(60):
        crop = data[0, epoch]["blur"]
        rows, columns = range(0, whole.shape[1] - 31, 4), range(0, whole.shape[2] - 31, 4)
        places.append(next(x for y in rows for x in columns if np.array_equal(whole[:, y : y + 32, x : x + 32], crop)))
        (first,) = next(iter(BatchPlan(3, 1, 7, first_epoch=epoch)))
        firsts.append(first[0])
    assert len(set(places)) > 8 and set(firsts) == {0, 1, 2}
    assert abs(np.corrcoef(places, firsts)[0, 1]) < 0.4


def test_instants_of_known_frames():
    from codes.labels import KnownSharp

    drawn = [KnownSharp(2, 5).instants(step) for step in range(2000)]
    known = EXPOSURE.sequence_instants
    assert all(a < b and {a, b} <= set(known) for a, b in drawn) and drawn[3] == KnownSharp(2, 5).instants(3)
    counts = [sum(instant in pair for pair in drawn) for instant in known]
    assert max(abs(count - 2000 * 2 / 7) for count in counts) < 100  # five standard deviations
