"""Are exposure, tone and registration found rightly? Simulated captures whose truth is known (docs/captures.md).

    python scripts/dev/capture_trials.py --find exposure --photos PHOTOS --seed 1
    python scripts/dev/capture_trials.py --find tone --photos PHOTOS --seed 2
    python scripts/dev/capture_trials.py --find registration --photos PHOTOS --seed 3 --size 240x384 --motion 15 60

A photograph passes with cut-outs of others before the paper's sensor, Vth 1, 2 and 4 in turn, with its noise. For the
*exposure* its length (60 to 300 frames) and its place in a longer stream are drawn; for the *tone* the photo is coded
linear, with 1.8, 2.2 and as sRGB in turn; for the *registration* the spikes see the scene moved by 2 to 12 pixels,
turned by up to a degree and up to 2 % larger or smaller, and the LDN's frame at the centre is compared with that of the
aligned capture, in what both cameras see.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codes.engine.command import command
from codes.engine.options import Size, option, parse_config

MARGIN = 32
"""Pixels around the photo that are rendered too."""


@dataclass(frozen=True)
class TrialConfig:
    """What is tried."""

    find: Literal["exposure", "tone", "registration"] = option("exposure", "what is to be found")
    photos: Path | None = option(None, "your photographs; none: four of scikit-image's")
    size: Size = option("480x640", "of the photo", low=64, multiple=4)
    count: int = option(20, "captures", low=1)
    motion: tuple[float, float] = option((15.0, 90.0), "pixels over the exposure", low=0, metavar=("MIN", "MAX"))
    seed: int = option(0, "of all that is drawn", low=0)


def film(photos, size, motion: float, total: int, exposure: slice, seed, index: int):
    """The ``total`` frames of a scene, ``MARGIN`` larger each way; the camera moves by ``motion`` in the exposure."""
    import numpy as np

    from codes.making.synthesis import Motion, Sample, Scene, draw_motion

    size = size[0] + 2 * MARGIN, size[1] + 2 * MARGIN
    sample = Sample("test", index, photos[index % len(photos)], 1.0, (), size, seed)
    path = draw_motion(1.0, max(size) / 2, sample.rng(1)).shift
    times = np.linspace(0, len(path) - 1, total)

    def stretched(values):
        flat = np.reshape(values, (len(values), -1))
        columns = [np.interp(times, np.arange(len(flat)), column) for column in flat.T]
        return np.stack(columns, axis=1).reshape(total, *np.shape(values)[1:])

    motion /= np.linalg.norm(np.diff(stretched(path)[exposure], axis=0), axis=1).sum()
    others = tuple((photos[(index + step) % len(photos)], motion * step / 2) for step in (1, 2))
    scene = Scene(Sample("test", index, sample.photo, motion, others, size, seed))
    scene.background.matrices = stretched(scene.background.matrices)
    for thing in scene.foregrounds:
        thing.motion = Motion(*map(stretched, (thing.motion.shift, thing.motion.angle, thing.motion.zoom)))
    return map(scene.frame, range(total))


def capture(frames, size, exposure: slice, vth: float, seed, way=None):
    """Photo in linear light, uint8 sharp frame of the exposure's centre, and stream; ``way``: photo to spikes' view."""
    import cv2
    import numpy as np

    from codes.making.sensor import seen_by_spike_camera, spikes_from_frames

    blur, light = np.zeros((*size, 3), np.float64), []
    corner = np.array([[1, 0, -MARGIN], [0, 1, -MARGIN], [0, 0, 1.0]])
    for time, frame in enumerate(frames):
        inner = frame[MARGIN:-MARGIN, MARGIN:-MARGIN]
        if exposure.start <= time < exposure.stop:
            blur += inner
        if time == (exposure.start + exposure.stop) // 2:
            sharp = np.uint8(np.rint(inner * 255))
        seen = inner if way is None else cv2.warpPerspective(frame, way @ corner, size[::-1], flags=cv2.INTER_CUBIC)
        light.append(seen_by_spike_camera(np.ascontiguousarray(seen).clip(0, 1), 4))
    return blur / (exposure.stop - exposure.start), sharp, spikes_from_frames(np.stack(light), seed, vth)


def try_exposure(photos, cfg, index, vth, rng, motion) -> tuple[str, bool, bool]:
    """What was found, whether it was sure, whether it is right."""
    from codes.errors import InputError
    from codes.inference import open_capture

    length = int(rng.integers(60, 301))
    total = int(length / rng.uniform(0.4, 0.8))
    start = int(rng.integers(5, total - length - 4))
    exposure = slice(start, start + length)
    blur, _, stream = capture(
        film(photos, cfg.size, motion, total, exposure, cfg.seed, index), cfg.size, exposure, vth, rng
    )
    words = f"{start}:{exposure.stop} of {total}"
    try:
        found = open_capture(to_photo(blur), stream, exposure="auto")
    except InputError as error:
        return f"{words}: {error}", False, False
    note = next(note for note in found.notes if note.startswith("exposure"))
    apart = max(abs(found.exposure.start - start), abs(found.exposure.stop - exposure.stop))
    return f"{words}: {note}; off by {apart}", True, apart <= (2 if motion >= 15 else 5)


def try_tone(photos, cfg, index, vth, rng, motion) -> tuple[str, bool, bool]:
    """What was found, whether it was sure, whether it is right."""
    from codes.spike import EXPOSURE
    from codes.tone import Tone, estimate

    tone = Tone(("linear", "gamma:1.8", "gamma:2.2", "srgb")[index % 4])
    window = slice(EXPOSURE.start, EXPOSURE.stop)
    frames = film(photos, cfg.size, motion, EXPOSURE.total, window, cfg.seed, index)
    blur, _, stream = capture(frames, cfg.size, window, vth, rng)
    found = estimate(to_photo(tone.coded(blur.clip(0, 1))), stream[window].mean(axis=0))
    words = f"{tone.name}: {found.tone.name}, gamma {found.gamma:.2f} ({found.low:.2f} to {found.high:.2f}) {found.why}"
    return words, found.sure, abs(found.tone.gamma - tone.gamma) <= 0.1 + 1e-9


def try_registration(photos, cfg, index, vth, rng, motion) -> tuple[str, bool, bool]:
    """What was found, whether it moved anything, whether it costs little."""
    import cv2
    import numpy as np

    from codes.inference import Capture, Deblurrer, Reading, open_capture
    from codes.registration import Registration
    from codes.spike import EXPOSURE

    window = slice(EXPOSURE.start, EXPOSURE.stop)
    middle = np.array(cfg.size[::-1]) / 2
    turn, scale, shift = np.radians(rng.uniform(-1, 1)), 1 + rng.uniform(-0.02, 0.02), rng.normal(size=2)
    shift *= rng.uniform(2, 12) / np.linalg.norm(shift)
    way = np.eye(3)
    way[:2, :2] = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    way[:2, 2] = middle + shift - way[:2, :2] @ middle
    seed = int(rng.integers(1 << 30))
    aligned, moved = (
        capture(film(photos, cfg.size, motion, EXPOSURE.total, window, cfg.seed, index), cfg.size, window, vth, seed, w)
        for w in (None, way)
    )
    photo, sharp = to_photo(aligned[0]), aligned[1]
    inside = cv2.warpPerspective(np.ones(cfg.size, np.float32), np.linalg.inv(way), cfg.size[::-1]) > 0.999
    inside = cv2.erode(np.pad(np.uint8(inside), 1), np.ones((17, 17)))[1:-1, 1:-1] > 0
    ldn = Deblurrer("ldn", device="cpu")

    def quality(opened):
        image = next(ldn.frames(opened, [EXPOSURE.centre]))
        return 10 * np.log10(255**2 / np.square(image[inside].astype(float) - sharp[inside]).mean())

    reading = Reading(tone="linear")
    untouched = open_capture(photo, aligned[2], reading)
    same = untouched.spike is aligned[2] and untouched.registration == Registration()
    found = open_capture(photo, moved[2], reading)
    best, mended, off = (
        quality(each) for each in (Capture(photo, aligned[2], window), found, Capture(photo, moved[2], window))
    )
    apart = found.registration.distance(cfg.size, Registration.from_pixels(way, cfg.size, cfg.size))
    words = (
        f"aligned {best:.2f} {'left bit for bit' if same else 'CHANGED'}, registered {mended:.2f}, not {off:.2f} dB; "
    )
    limit = {1: 0.4, 2: 0.6, 4: 0.8}[vth]
    return f"{words}corners off by {apart:.2f}", True, bool(same and best - mended <= limit)


def to_photo(light):
    """Light in [0, 1] as uint8."""
    import numpy as np

    return np.uint8(np.rint(light.clip(0, 1) * 255))


def main(argv: list[str] | None = None) -> None:
    """Simulate, find, count."""
    cfg = parse_config(TrialConfig, argv, __doc__)
    import numpy as np

    from codes.making.photos import find_photos

    photos = list(find_photos(cfg.photos).values())
    photos = [photos[index] for index in np.random.default_rng(cfg.seed).permutation(len(photos))]
    trial = {"exposure": try_exposure, "tone": try_tone, "registration": try_registration}[cfg.find]
    counts = {"right": 0, "wrong": 0, "cannot tell": 0}
    for index in range(cfg.count):
        rng, vth = np.random.default_rng((cfg.seed, index)), (1, 2, 4)[index % 3]
        motion = rng.uniform(*cfg.motion)
        words, sure, right = trial(photos, cfg, index, vth, rng, motion)
        verdict = ("right" if right else "wrong") if sure else "cannot tell"
        counts[verdict] += 1
        print(f"{index}: Vth {vth}, motion {motion:.0f}, {words} [{verdict}]", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


if __name__ == "__main__":
    command(main)
