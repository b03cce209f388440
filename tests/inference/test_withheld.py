"""Figures without a sharp image, on captures whose truth is known; folders of captures."""

import cv2
import numpy as np
import pytest

from codes.errors import MissingFileError
from codes.image import write_image
from codes.inference.captures import find_pairs, sound
from codes.inference.opening import Capture, Reading
from codes.inference.withheld import figures, left_over, observed, seen, withhold
from codes.making.sensor import seen_by_spike_camera, spikes_from_frames
from codes.registration import Registration
from codes.spike import EXPOSURE, evenly

SIZE = (192, 256)


@pytest.fixture(scope="module")
def scene():
    """Frames of a texture that moves by 20 pixels over the exposure, and its capture."""
    rng = np.random.default_rng(0)
    texture = cv2.resize(
        rng.random((40, 60, 3), dtype=np.float32), (SIZE[1] + 60, SIZE[0]), interpolation=cv2.INTER_CUBIC
    )
    texture = np.uint8(np.clip(texture, 0, 1) * 255)
    frames = [texture[:, t // 5 : t // 5 + SIZE[1]] for t in range(EXPOSURE.total)]
    blur = np.uint8(np.rint(np.mean(frames[EXPOSURE.start : EXPOSURE.stop], axis=0)))
    spikes = spikes_from_frames(np.stack([seen_by_spike_camera(frame, 4) for frame in frames]), 1)
    return frames, Capture(blur, spikes, slice(EXPOSURE.start, EXPOSURE.stop))


def test_only_the_withheld_pixels_change(scene):
    capture = scene[1]
    partial, mask = withhold(capture)
    assert mask.mean() == pytest.approx(1 / 25, rel=0.1)
    same = (partial.spike == capture.spike).all(axis=0)
    assert same[~mask].all() and not same[mask].any()


def test_true_frames_agree_better_than_the_blurry_photo_or_those_of_another_time(scene):
    frames, capture = scene
    mask, instants = withhold(capture)[1], evenly(capture.exposure, 13)

    def of(chosen):
        return figures(capture, mask, instants, chosen)

    true, late = of([frames[t] for t in instants]), of([frames[t + 10] for t in instants])
    blurry = of([capture.blur] * 13)
    assert true["agreement"] > late["agreement"] + 0.3 and true["agreement"] > blurry["agreement"] + 0.5
    assert blurry["reblur"] == 100 and 35 < true["reblur"] < 100 and true["reblur"] > late["reblur"] + 5


def test_of_still_light_without_noise_everything_agrees():
    ramp = np.uint8(np.tile(np.linspace(40, 200, 160), (96, 1)))
    blur = np.repeat(ramp[..., None], 3, axis=-1)
    frame = seen_by_spike_camera(blur, 4)
    spikes = spikes_from_frames(np.repeat(frame[None], 137, axis=0), 2, noise=False)
    capture = Capture(blur, spikes, slice(20, 117))
    found = figures(capture, withhold(capture)[1], [20, 116], [blur, blur])
    assert found["reblur"] == 100 and found["agreement"] > 40  # a spike more or less in 96 frames


def test_misalignment_that_is_left_is_found(scene):
    frames, capture = scene
    moved = Capture(np.roll(capture.blur, 2, axis=1), capture.spike, capture.exposure)
    assert left_over(capture) < 0.25 and left_over(moved) == pytest.approx(2, abs=0.4)


def test_the_spikes_see_the_image_where_they_lie(scene):
    capture = scene[1]
    matrix = np.float64([[1, 0, 8], [0, 1, 4], [0, 0, 1]])  # 2 and 1 spike pixels
    way = Registration.from_pixels(matrix, SIZE, SIZE)
    away = Capture(capture.blur, capture.spike, capture.exposure, registration=way)
    assert np.allclose(seen(away, capture.light())[1:, 2:], seen(capture, capture.light())[:-1, :-2], atol=1e-3)


def test_what_a_capture_tells(scene):
    found = observed(scene[1])
    assert (found["ratio"], found["enlarged"], found["stretch"], found["tone"]) == (4, 1, 1, "linear")
    assert not found["grey"] and found["light"].shape == found["rate"].shape == (48, 64)
    large = Capture(cv2.resize(scene[1].blur, (192, 144)), scene[1].spike, slice(0, 130))
    found = observed(large)
    assert found["ratio"] == 4 and found["enlarged"] == pytest.approx(4 / 3) and found["stretch"] == 130 / 97


@pytest.mark.parametrize("places", [("", ""), ("blur_data", "spike_data"), ("train/blur_data/a", "train/spike_data/a")])
def test_captures_are_found_where_they_may_lie(scene, places, tmp_path):
    capture = scene[1]
    for name in ("1", "2"):
        image, stream = (tmp_path / place / name for place in places)
        write_image(image.with_suffix(".png"), capture.blur)
        stream.parent.mkdir(parents=True, exist_ok=True)
        np.save(stream.with_suffix(".npy"), capture.spike)
    write_image(tmp_path / places[0] / "alone.png", capture.blur)
    found = find_pairs(tmp_path)
    assert [(image.stem, stream.stem) for _, image, stream in found] == [("1", "1"), ("2", "2")]
    assert [name for name, *_ in found] == (["a/1", "a/2"] if places[0].endswith("/a") else ["1", "2"])
    with pytest.raises(MissingFileError, match="holds no captures"):
        find_pairs(tmp_path / "nothing")


def test_captures_that_do_not_fit_are_left_out_with_the_reason(scene, tmp_path, capsys):
    capture = scene[1]
    for name, spike in (("dark", 0 * capture.spike), ("good", capture.spike), ("other", capture.spike[:, ::-1, ::-1])):
        write_image(tmp_path / f"{name}.png", capture.blur)
        np.save(tmp_path / f"{name}.npy", spike)
    left_out: dict = {}
    reading = Reading(align="off", tone="linear")
    assert [name for name, _ in sound(find_pairs(tmp_path), reading, left_out)] == ["good"]
    assert "fires in 0.0% of the frames" in left_out["dark"] and "180 degrees" in left_out["other"]
    assert "other: left out" in capsys.readouterr().out
