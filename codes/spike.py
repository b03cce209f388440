"""Spike streams: windows in time, and the textures read from spikes.

A spike stream is a cube of zeros and ones, ``(T, H, W)`` with time first. A stream that accompanies
one blurry photograph has T = 137 frames: 20 before the exposure, 97 during it, 20 after it. All frame
indices count from the start of the file, so the exposure is [20, 117) and its centre 68.

Source: S-SDM (arXiv 2403.09486), section 3. Files: codes.dat; the numbers above: codes.exposure; both also from here.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from codes.dat import count_frames, frame_bytes, pack, read_dat, write_dat  # noqa: F401
from codes.errors import InputError
from codes.exposure import EXPOSURE, SCALE, ExposureWindow  # noqa: F401
from codes.metrics import wide_float


def evenly(exposure, count: int) -> tuple[int, ...]:
    """``count`` instants from the first to the last frame of an exposure (with ``start`` and ``stop``); 1: its centre.

    7 of the official exposure are those of the sequence protocol.

    Raises:
        ValueError: fewer than one, or more than the exposure has frames.
    """
    length = exposure.stop - exposure.start
    if not 1 <= count <= length:
        raise InputError(f"{count} instants of an exposure of {length} frames; expected 1 to {length}")
    if count == 1:
        return (exposure.start + length // 2,)
    return tuple(exposure.start + round(index * (length - 1) / (count - 1)) for index in range(count))


def window(centre: int, length: int, total: int) -> slice:
    """The frames [centre - length // 2, centre + length // 2] of a stream of ``total`` frames.

    The window is symmetric, so an even length takes one frame more: 8 is the same as 9.

    Raises:
        ValueError: the window leaves the stream.
    """
    half = length // 2
    if length < 1 or centre - half < 0 or centre + half >= total:
        reach = (
            f"the centre must lie in [{half}, {total - 1 - half}]"
            if 0 <= half <= total - 1 - half
            else (f"{total} frames allow a length of 1 to {total - 1 + total % 2}")
        )
        raise InputError(
            f"spike window [{centre - half}, {centre + half + 1}) of length {length} leaves the {total}-frame stream; "
            f"{reach}"
        )
    return slice(centre - half, centre + half + 1)


def spike_window(spike, centre: int, length: int):
    """Cut a window in time out of ``spike`` ``(..., T, H, W)`` (tensor or array); see :func:`window`."""
    return spike[..., window(centre, length, spike.shape[-3]), :, :]


def spike_windows(spike: torch.Tensor, instants, length: int) -> torch.Tensor:
    """The windows around several instants: ``(B, T, H, W)`` to ``(B, M, length, H, W)``; see :func:`window`."""
    return torch.stack([spike_window(spike, instant, length) for instant in instants], dim=1)


def tfp(spike: torch.Tensor, centre: int, length: int) -> torch.Tensor:
    """Texture from playback: the mean of the spikes in a window around an instant.

    Args:
        spike: ``(..., T, H, W)``, tensor or array of any dtype, zeros and ones.
        centre: frame index of the instant.
        length: window length in frames (97 for the whole exposure, 9 for an instant).

    Returns:
        float32 ``(..., 1, H, W)`` in [0, 1].

    Raises:
        ValueError: the window leaves the stream.
    """
    return torch.as_tensor(spike_window(spike, centre, length)).mean(dim=-3, keepdim=True, dtype=torch.float32)


def tfp_long(spike: torch.Tensor, exposure=EXPOSURE) -> torch.Tensor:
    """The mean of the spikes over the whole exposure, as :func:`tfp` of an instant.

    Args:
        spike: ``(..., T, H, W)``.
        exposure: anything with ``start`` and ``stop``, frame indices: the official window, or a slice.

    Returns:
        float32 ``(..., 1, H, W)`` in [0, 1].

    Raises:
        ValueError: the exposure leaves the stream.
    """
    start, stop, total = exposure.start, exposure.stop, spike.shape[-3]
    if not 0 <= start < stop <= total:
        raise InputError(f"the exposure [{start}, {stop}) leaves the {total}-frame stream; expected 0 <= START < END")
    return torch.as_tensor(spike[..., start:stop, :, :]).mean(dim=-3, keepdim=True, dtype=torch.float32)


def refuse_outside(instants, total: int) -> None:
    """Refuse instants that are no frames of a stream.

    Raises:
        InputError: names the first.
    """
    for instant in instants:
        if not 0 <= instant < total:
            raise InputError(f"instant {instant} is outside the {total}-frame stream; expected 0 to {total - 1}")


def mirrored(spike: torch.Tensor, frames: int) -> torch.Tensor:
    """A stream ``(..., T, H, W)`` with ``frames`` more on either side, mirrored at its ends: ``T + 2 * frames``.

    So a window at an end has as many frames as any other, and its mean is that of the half inside. Frames beyond a
    whole mirroring are taken from the end frame.
    """
    return _mirrored(spike, -frames, spike.shape[-3] + frames)


def mirrored_windows(spike: torch.Tensor, instants, length: int) -> torch.Tensor:
    """Windows of any length around several instants, of a stream that is mirrored at its ends.

    Unlike :func:`spike_windows` an even length is possible, and a window may leave the stream. The neighbouring
    networks are given such windows (56, 61 and 96 frames), which the 137 frames do not hold around every instant.

    Args:
        spike: ``(B, T, H, W)``, any dtype.
        instants: M frame indices, 0 <= instant < T.
        length: frames of a window; the instant is the one of index ``length // 2``.

    Returns:
        ``(B, M, length, H, W)``, the dtype of ``spike``.

    Raises:
        ValueError: an instant outside the stream.
    """
    refuse_outside(instants, spike.shape[-3])
    starts = [instant - length // 2 for instant in instants]
    return torch.stack([_mirrored(spike, start, start + length) for start in starts], dim=1)


def _mirrored(spike: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Frames [start, stop) of a stream that is mirrored at its ends; see :func:`mirrored`."""
    total = spike.shape[-3]
    if 0 <= start and stop <= total:
        return spike[..., start:stop, :, :]
    index = torch.arange(start, stop, device=spike.device)
    index = torch.where(index < 0, -index, index)
    index = torch.where(index >= total, 2 * (total - 1) - index, index).clamp(0, total - 1)
    return spike.index_select(-3, index)


def tfi(spike: torch.Tensor, instant: int) -> torch.Tensor:
    """Texture from inter-spike interval, for looking at a stream: one over the interval around an instant.

    The interval runs from the last spike at or before the instant to the first one after it. A pixel
    that lacks either is 0.

    Args:
        spike: ``(..., T, H, W)``, tensor or array of any dtype, zeros and ones.
        instant: frame index, 0 <= instant < T.

    Returns:
        float32 ``(..., 1, H, W)`` in [0, 1], in spikes per frame.
    """
    refuse_outside([instant], spike.shape[-3])
    fired = torch.as_tensor(spike).bool()
    before, after = fired[..., : instant + 1, :, :], fired[..., instant + 1 :, :, :]
    if after.shape[-3] == 0:
        return torch.zeros_like(before[..., :1, :, :], dtype=torch.float32)
    # argmax of 0/1 finds the first spike; for the past, time is turned round.
    back = before.flip(-3).to(torch.uint8).argmax(dim=-3, keepdim=True)
    ahead = after.to(torch.uint8).argmax(dim=-3, keepdim=True)
    known = before.any(dim=-3, keepdim=True) & after.any(dim=-3, keepdim=True)
    return torch.where(known, 1.0 / (back + ahead + 1).float(), 0.0)


def tfp_windows(spike: torch.Tensor, windows: Sequence[tuple[int, int]]) -> torch.Tensor:
    """TFP over many windows: means over those of their frames that the stream holds, 0 where it holds none.

    Args:
        spike: ``(..., T, H, W)``, zeros and ones of any dtype, or means of some.
        windows: pairs of frame indices, the first and the one behind the last.

    Returns:
        float32 ``(..., len(windows), H, W)`` in spikes per frame.
    """
    spike = torch.as_tensor(spike)
    total = spike.shape[-3]
    exact = wide_float(spike.device) if spike.is_floating_point() else torch.int32
    spans = [(min(max(start, 0), total), min(max(stop, 0), total)) for start, stop in windows]
    if sum(stop - start for start, stop in spans) > 2 * total:  # sums from the beginning are less work
        sums = F.pad(spike.cumsum(dim=-3, dtype=exact), (0, 0, 0, 0, 1, 0))
        counts = [sums[..., stop, :, :] - sums[..., start, :, :] for start, stop in spans]
    else:
        counts = [spike[..., start:stop, :, :].sum(dim=-3, dtype=exact) for start, stop in spans]
    means = [count.float() / max(stop - start, 1) for count, (start, stop) in zip(counts, spans, strict=True)]
    return torch.stack(means, dim=-3)


AROUND = 160
"""Frames to either side of what is looked at that :class:`Intervals` keeps: 96 that a student sees and an interval."""


class Intervals:
    """Light by intervals, which is TFI at every frame: each spike is spread over the frames since the spike before.

    A mean of it over a window counts light in fractions of a spike, where :func:`tfp` counts whole ones. An interval
    that an end of the stream cuts is taken to be as long as its neighbour, or as what is seen of it if that is longer.

    When a frame begins, a pixel has gathered the spikes before it, and of the next one the share of its interval that
    is over. So the two ends of a window tell its light, and what is kept of every frame are three small integers (of
    means of spikes also two floats).

    Args:
        spike: ``(..., T, H, W)``, zeros and ones of any dtype, or means of some, which are spread likewise.
        first, last: frames of a long stream that all windows lie near; None: its end.
    """

    def __init__(self, spike: torch.Tensor, first: int = 0, last: int | None = None):
        self.start, self.total = max(first - AROUND, 0), spike.shape[-3]
        stop = self.total if last is None else last + AROUND + 1
        spike = torch.as_tensor(spike)[..., self.start : stop, :, :].movedim(-3, 0)
        means, self.frames = spike.is_floating_point(), len(spike)
        # Bytes if they hold the numbers of frames: what is subtracted is right modulo 256, and no interval is longer.
        # Sums, products and extremes, a frame at a time in the cache: comparing or choosing takes ten times as long.
        kinds = (torch.uint8, torch.int16, torch.int32)
        fired = ((spike > 0) if means else spike).to(next(k for k in kinds if self.frames + 1 < torch.iinfo(k).max))
        # Before each frame, the end of the last spike's, and that of the next one's, counted from the stream's end (j
        # is frames + 1 - j there). 0: there is none; the interval is then one that an end of the stream cuts.
        self._back, self._ahead = _latest(fired.unbind()), _latest(fired.unbind()[::-1])
        end, begin = self._back[-1], self.frames + 1 - self._ahead[-1]
        after = end + torch.maximum(end - _last_but_one(self._back), self.frames - end)
        second = _last_but_one(self._ahead)
        second = torch.where(second > 0, self.frames + 1 - second, after)
        self._before, self._behind = begin - torch.maximum(begin, second - begin), self.frames + 1 - after
        # What is gathered in whole spikes, and what the next is worth: 1, or 0 where a pixel never fires.
        self._whole, self._worth = _sums(fired, fired.dtype), [end.clamp(max=1)] * (self.frames + 1)
        if means and (spike != fired).any():
            self._whole, worth = _sums(spike, wide_float(spike.device)), torch.zeros_like(spike[0])
            for frame in (*range(self.frames), *reversed(range(self.frames))):
                self._worth[frame] = worth = torch.where(fired[frame] > 0, spike[frame], worth)
            self._worth[-1] = self._worth[-2]

    def keeps(self, start: int, stop: int) -> bool:
        """Whether those of these frames that the stream holds are near enough."""
        return max(start, 0) >= self.start and min(stop, self.total) <= self.start + self.frames

    def means(self, windows: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Mean light over windows: over those of their frames that the stream holds, 0 where it holds none.

        Args:
            windows: pairs of frame indices, the first and the one behind the last.

        Returns:
            float32 ``(..., len(windows), H, W)`` in spikes per frame; 0 where a pixel never fires.

        Raises:
            InputError: a window is far from the frames that were to be looked at.
        """
        for window in windows:
            if not self.keeps(*window):
                raise InputError(
                    f"frames {window[0]} to {window[1] - 1} of {self.total} are asked for; only {self.start} to "
                    f"{self.start + self.frames - 1} are kept"
                )
        spans = [tuple(min(max(end - self.start, 0), self.frames) for end in window) for window in windows]
        begun = {end: self._begun(end) for end in {end for span in spans for end in span}}
        light = torch.empty(len(spans), *self._before.shape, device=self._before.device)
        for mean, (start, stop) in zip(light, spans, strict=True):
            torch.sub(begun[stop], begun[start], out=mean)
            mean.add_(self._whole[stop] - self._whole[start]).div_(max(stop - start, 1))
        return light.movedim(0, -3)

    def _begun(self, frame: int) -> torch.Tensor:
        """What is gathered of the next spike when a frame begins, float32 ``(..., H, W)`` in [0, 1]."""
        back, ahead = self._back[frame], self._ahead[self.frames - frame]
        back = back + self._before * (1 - back.clamp(max=1))
        ahead = ahead + self._behind * (1 - ahead.clamp(max=1))
        return (frame - back) * self._worth[frame] / (self.frames + 1 - ahead - back)


def _latest(frames: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of the first none, one, two ... frames, the last that fires, by its number from 1 on; 0: none."""
    numbers = frames[0].new_empty(len(frames) + 1, *frames[0].shape)
    numbers[0] = 0
    planes = numbers.unbind()
    for number, frame in enumerate(frames, 1):
        torch.maximum(planes[number - 1], number * frame, out=planes[number])
    return numbers


def _last_but_one(numbers: torch.Tensor) -> torch.Tensor:
    """The last frame that fires but one, of what :func:`_latest` found."""
    before = numbers[-1:].long().sub_(1).clamp_(min=0)
    return numbers.gather(0, before)[0]


def _sums(frames: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """The sums of the first none, one, two ... frames; quicker than torch.cumsum."""
    sums = frames.new_empty(len(frames) + 1, *frames.shape[1:], dtype=kind)
    sums[0] = 0
    planes = sums.unbind()
    for number, frame in enumerate(frames, 1):
        torch.add(planes[number - 1], frame, out=planes[number])
    return sums


def middle_tfi(spike: torch.Tensor, instant: int, reach: int = 50, both: bool = False) -> torch.Tensor:
    """TFI as the neighbouring networks have it: the interval around an instant, looked for within a reach.

    The interval runs from the last spike at or before the instant to the first one after it; where one of them is not
    among the ``reach`` frames on its side, the end of the reach stands for it. Spikes of the very first frame are
    overlooked, as in both published programs. Twice this image at the middle of the exposure is what
    :class:`codes.baselines.spkdeblurnet_model.SpkDeblurNet` is given.

    Args:
        spike: ``(..., T, H, W)``, tensor or array of any dtype, zeros and ones.
        instant: frame index, 0 <= instant < T; T // 2 in the published programs.
        reach: frames on either side of the instant: 50 for SpkDeblurNet, 20 for Spike-Zoo.
        both: a pixel that lacks one of the two counts as one that lacks both (Spike-Zoo).

    Returns:
        float32 ``(..., 1, H, W)`` in [1 / (2 * reach), 1], in spikes per frame.
    """
    total = spike.shape[-3]
    if not 0 <= instant < total or reach < 1:
        raise InputError(
            f"TFI at instant {instant} with a reach of {reach} in {total} frames; expected an instant from 0 to "
            f"{total - 1} and a reach of at least 1"
        )
    fired = torch.as_tensor(spike).bool()
    before = fired[..., max(instant - reach + 1, 1) : instant + 1, :, :].flip(-3)
    after = fired[..., instant + 1 : instant + 1 + reach, :, :]
    found, steps = [], []
    for frames, missing in ((before, reach), (after, reach - 1)):
        ends = torch.ones_like(fired[..., :1, :, :])  # argmax needs a frame to find
        found.append(frames.any(dim=-3, keepdim=True))
        first = torch.cat([frames, ends], dim=-3).to(torch.uint8).argmax(dim=-3, keepdim=True)
        steps.append(torch.where(found[-1], first, missing))
    interval = steps[0] + steps[1] + 1
    if both:
        interval = torch.where(found[0] & found[1], interval, 2 * reach)
    return 1.0 / interval.float()
