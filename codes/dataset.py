"""The data set: blurry images, spike streams and (for evaluation only) sharp images.

    root_dir/{train,test}/blur_data/<sequence>/<frame>.png     H x W, 8-bit
    root_dir/{train,test}/spike_data/<sequence>/<frame>.dat    137 frames of H/4 x W/4 (spike_data_vth2 for Vth 2, ...)
    root_dir/{train,test}/spike_full/<sequence>/<frame>.dat    137 frames of H x W (``spike_full``)
    root_dir/{train,test}/sharp_data/<sequence>/<frame>.png    the sharp frame at the centre of the exposure, and under
                                                               the numbers of its neighbours (-6 to +6) their frames

A file camera.json in root_dir says what is known of real cameras, tone curve and registration
(:class:`codes.registration.Camera`); without it images are linear in light and lie on their spikes.

Real captures (``data_type='real'``, RSB) have no sharp_data, and may lie in root_dir itself, without splits. A sample
exists when its .dat exists; images may have any format that OpenCV reads; sizes are read from the data.
"""

import errno
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from codes.cache import ArrayCache
from codes.dat import count_frames, find_streams, frame_bytes, read_dat
from codes.errors import InputError, MissingFileError, one_line, readable
from codes.exposure import EXPOSURE, SCALE
from codes.files import by_stem, disguise, namesake
from codes.image import IMAGES, read_image
from codes.random import rng
from codes.registration import Camera

IMAGE_KEYS = ("blur", "sharp", "sharps")
"""What of a sample are images."""


class SpikeData(torch.utils.data.Dataset):
    """Samples as dictionaries.

    ``blur`` float32 ``(3, H, W)`` B,G,R in [0, 1]; ``spike`` uint8 ``(137, H/4, W/4)`` of zeros and ones
    (``(137, H, W)`` with ``spike_full``); ``name`` '<sequence>/<frame>'; and ``sharp`` like ``blur`` when it is
    asked for and exists.

    An item is asked for by its index, or by (index, epoch), which draws the crop: the crop depends on seed, index
    and epoch alone, so that neither the number of loader processes nor an interruption changes it.

    Args:
        root_dir: folder that holds ``train`` and ``test``.
        data_type: 'GOPRO' or 'real'.
        stage: 'train' or 'test': the split.
        spike_full: read spikes at the size of the image.
        use_small: keep every 10th sample.
        use_roi: crop; whole frames if not.
        roi_size: side of the square crop in image pixels, a multiple of 4.
        use_sharp: read the sharp image; 'sequence' also reads those at the 7 instants of the sequence protocol, as
            ``sharps`` ``(7, 3, H, W)``.
        seed: seed of the crops.
        vth: firing threshold in the paper's unit: the folder spike_data_vth2 for 2; 0, or 1 where there is no
            spike_data_vth1, is spike_data.
        more_vth: other thresholds; of these and ``vth``, each item is given one at random, by seed, epoch and index.
        size: (height, width) that the images must have; 0 is any.
        cache: folder that keeps the decoded images from their first use on (:mod:`codes.cache`); '' is none. The
            samples are the same bit for bit.
        skip_bad: a sample that cannot be read is then {'name', 'fault'}, the latter saying why, instead of an error;
            :func:`loader` keeps these apart.
        flips: turn crops by a random multiple of 90 degrees, and mirror every other one.
        scale: image pixels per spike pixel, each way: 2 for a data set that was prepared with ``--scale 2``.

    Attributes:
        textures: where whole-frame textures of the teacher lie, if anywhere; a sample then
            has ``textures`` float16 ``(1 + M, H, W)``, cropped like ``blur``.

    Raises:
        OSError: the folder is missing or holds no sample; says what was looked for and where.
        ValueError: a sample's partner is missing or of a wrong size; names it. What the length of the files shows is
            found here, the rest when the sample is read.
    """

    def __init__(
        self,
        root_dir,
        data_type: str,
        stage: str,
        spike_full: bool = False,
        use_small: bool = False,
        use_roi: bool = False,
        roi_size: int = 512,
        use_sharp: bool | str = False,
        seed: int = 0,
        vth: float = 0.0,
        size: tuple[int, int] = (0, 0),
        cache="",
        flips: bool = False,
        more_vth: Sequence[float] = (),
        skip_bad: bool = False,
        scale: int = SCALE,
    ):
        if data_type not in ("GOPRO", "real"):
            raise InputError(f"data_type '{data_type}'; expected 'GOPRO' or 'real'")
        if use_roi and (roi_size < SCALE or roi_size % SCALE):
            raise InputError(f"--roi_size is {roi_size}; a crop on the spike grid needs a multiple of {SCALE}")
        self.scale = 1 if spike_full else scale
        self.use_roi, self.roi_size, self.seed, self.size = use_roi, roi_size, seed, size
        self.use_sharp = use_sharp if data_type == "GOPRO" else False
        self.flips, self.skip_bad = flips, skip_bad
        self.cache = ArrayCache(Path(cache)) if cache else None
        self.textures: ArrayCache | None = None
        self.folder = self._split_folder(Path(root_dir), data_type, stage)
        self.camera = Camera.of(root_dir)
        spike_folder, *others = (
            self._spike_folder("spike_full" if spike_full else "spike_data", value) for value in (vth, *more_vth)
        )
        self.spike_paths = find_streams(spike_folder)
        if not self.spike_paths:
            what = "holds no */*.dat files" if spike_folder.is_dir() else "does not exist"
            raise MissingFileError(
                f"no samples: {spike_folder} {what}; expected "
                f"{Path(root_dir)}/{{train,test}}/{spike_folder.name}/<sequence>/<frame>.dat "
                "(README, 'Data'); is --base_folder right?"
            )
        if use_small:
            self.spike_paths = self.spike_paths[::10]
        usual = ".png" if data_type == "GOPRO" else ".jpg"
        suffixes = (usual, *(suffix for suffix in IMAGES if suffix != usual))
        self._listed: dict[Path, dict[str, Path]] = {}
        self.blur_paths = [self._partner(path, "blur_data", suffixes) for path in self.spike_paths]
        self.other_spikes = [
            [self._partner(path, folder.name, (".dat",)) for path in self.spike_paths] for folder in others
        ]
        self.sharp_paths = [
            self._partner(path.with_stem(stem), "sharp_data", suffixes)
            for path in (self.spike_paths if self.use_sharp else ())
            for stem in self._sharp_stems(path)
        ]
        # Lengths cost nothing to read: look closely at the first sample and at each that differs from it.
        lengths = [path.stat().st_size for path in self.spike_paths]
        for index, length in enumerate(lengths):
            if (index == 0 or length != lengths[0]) and not skip_bad:
                self[index]

    @staticmethod
    def _split_folder(root: Path, data_type: str, stage: str) -> Path:
        if not root.is_dir():
            raise MissingFileError(
                f"no data set: the folder {root} does not exist; give --base_folder (README, 'Data')"
            )
        folder = root / stage
        if data_type == "real" and not folder.is_dir() and (root / "spike_data").is_dir():
            return root
        if not folder.is_dir():
            inside = ", ".join(sorted(path.name for path in root.iterdir())[:5]) or "nothing"
            raise MissingFileError(f"no split '{stage}': the folder {folder} does not exist; {root} holds {inside}")
        return folder

    def _spike_folder(self, name: str, vth: float) -> Path:
        """The folder of the spikes at a threshold."""
        named = self.folder / f"{name}_vth{vth:g}"
        return named if vth and (vth != 1 or named.is_dir()) else self.folder / name

    def _partner(self, spike_path: Path, kind: str, suffixes: tuple[str, ...]) -> Path:
        folder, stem = self.folder / kind / spike_path.parent.name, spike_path.stem
        if folder not in self._listed:
            self._listed[folder] = by_stem(folder, suffixes)
        path = self._listed[folder].get(stem, folder / (stem + suffixes[0]))
        if path.is_file() or self.skip_bad:  # else found missing when it is read
            return path
        raise FileNotFoundError(
            errno.ENOENT,
            f"the sample {self._name(spike_path)} has no {kind}: no such file{namesake(path)}",
            str(path),
        )

    def _sharp_stems(self, spike_path: Path) -> list[str]:
        """Names of a sample's sharp images: its own, or with 'sequence' the raw frames' around it."""
        stem = spike_path.stem
        if self.use_sharp != "sequence":
            return [stem]
        if not stem.isdecimal():
            raise InputError(f"{spike_path}: the sequence protocol needs a frame number as name, as 000019.dat")
        return [f"{int(stem) + offset:0{len(stem)}}" for offset in EXPOSURE.sequence_offsets]

    @staticmethod
    def _name(spike_path: Path) -> str:
        return readable(f"{spike_path.parent.name}/{spike_path.stem}")

    @property
    def names(self) -> list[str]:
        """The samples' names in order, as 'sequence/frame'."""
        return [self._name(path) for path in self.spike_paths]

    def __len__(self) -> int:
        return len(self.spike_paths)

    def __getitem__(self, item) -> dict:
        return self._lit(self._item(item))

    def stored(self, item) -> dict:
        """A sample whose images are uint8 still, as the files have them, before :meth:`light`."""
        sample = self._item(item)
        return sample | {key: torch.from_numpy(sample[key].copy()) for key in IMAGE_KEYS if key in sample}

    def _item(self, item) -> dict:
        """A sample whose images are uint8 arrays, views of what was read."""
        index, epoch = item if isinstance(item, tuple) else (item, 0)
        try:
            return self._read(index, epoch, self.roi_size if self.use_roi else 0)
        except (OSError, InputError) as error:
            if not self.skip_bad:
                raise
            return {"name": self._name(self.spike_paths[index]), "fault": one_line(error)}

    def whole(self, index: int) -> dict:
        """A sample in whole frames, without textures, whether the data set crops or not."""
        return self._lit(self._read(index, 0, 0))

    def _other_scale(self, path: Path, height: int, width: int) -> str:
        """A hint where the stream fits the image at another scale."""
        for scale in {1, 2, SCALE} - {self.scale}:
            if count_frames(path, height // scale, width // scale) == EXPOSURE.total:
                return f"; it holds spikes of 1/{scale} of the image's sides"
        return ""

    def _image(self, path: Path) -> np.ndarray:
        """An image as uint8 ``(H, W, 3)``, from the cache if there is one."""
        if self.cache is None:
            return read_image(path)
        planes = self.cache.get(path, lambda: np.ascontiguousarray(read_image(path).transpose(2, 0, 1)))
        return planes.transpose(1, 2, 0)

    def _cut(self, image: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """A cut-out of an image on the grid of the spikes: ``(H, W, 3)`` to ``(3, H, W)``, uint8, a view."""
        return self.camera.on_spikes(image)[rows, columns].transpose(2, 0, 1)

    def light(self, image: np.ndarray) -> np.ndarray:
        """An image's bytes, uint8 of any shape, as linear light, float32 in [0, 1]."""
        return self.camera.tone.linear(np.divide(image, np.float32(255), dtype=np.float32, order="C"))

    def _lit(self, sample: dict) -> dict:
        """A sample with its images in linear light."""
        return {
            key: torch.from_numpy(self.light(value)) if key in IMAGE_KEYS else value for key, value in sample.items()
        }

    def _read(self, index: int, epoch: int, side: int) -> dict:
        spike_path, blur_path = self.spike_paths[index], self.blur_paths[index]
        name = self._name(spike_path)
        if self.other_spikes:
            paths = [self.spike_paths, *self.other_spikes]
            spike_path = paths[rng("threshold", self.seed, epoch, index).integers(len(paths))][index]
        blur = self._image(blur_path)
        height, width = blur.shape[:2]
        if height % SCALE or width % SCALE:
            raise InputError(
                f"{blur_path} is {height}x{width}; both sides must be multiples of {SCALE}, the scale of the spikes: "
                "crop it"
            )
        if (self.size[0] or height, self.size[1] or width) != (height, width):
            raise InputError(
                f"{blur_path} is {height}x{width}, but --height and --width ask for "
                f"{self.size[0] or 'any'}x{self.size[1] or 'any'}"
            )
        spike_size = (height // self.scale, width // self.scale)
        frames = count_frames(spike_path, *spike_size)
        if frames != EXPOSURE.total:
            hint = disguise(spike_path) or self._other_scale(spike_path, height, width)
            raise InputError(
                f"{spike_path} holds {spike_path.stat().st_size} bytes; {EXPOSURE.total} frames of "
                f"{spike_size[0]}x{spike_size[1]} (the image {height}x{width} / {self.scale}) are "
                f"{EXPOSURE.total * frame_bytes(*spike_size)}: truncated, or not made for this image{hint}"
            )
        sample: dict = {"name": name}
        rows = columns = spike_rows = spike_columns = slice(None)
        if side:
            if side > min(height, width):
                raise InputError(
                    f"--roi_size {side} is larger than the image {blur_path} ({height}x{width}); "
                    f"choose at most {min(height, width)}"
                )
            draw = rng("crops", self.seed, epoch, index)
            top, left = (int(draw.integers((extent - side) // SCALE + 1)) * SCALE for extent in (height, width))
            rows, columns = slice(top, top + side), slice(left, left + side)
            spike_rows, spike_columns = (
                slice(cut.start // self.scale, cut.stop // self.scale) for cut in (rows, columns)
            )
        sample["blur"] = self._cut(blur, rows, columns)
        sample["spike"] = torch.from_numpy(read_dat(spike_path, *spike_size, spike_rows, spike_columns))
        if self.textures and side:
            textures = self.textures.read(spike_path)
            if textures is None or textures.shape[1:] != (height, width):
                raise InputError(
                    f"{self.textures.folder} has no textures of {spike_path} as it is now; the same command makes them"
                )
            sample["textures"] = torch.from_numpy(textures[:, rows, columns].copy())
        if self.use_sharp:
            count = len(self.sharp_paths) // len(self)
            sharps = []
            for path in self.sharp_paths[index * count : (index + 1) * count]:
                sharp = self._image(path)
                if sharp.shape != blur.shape:
                    raise InputError(f"{path} is {sharp.shape[0]}x{sharp.shape[1]}, its blurry image {height}x{width}")
                sharps.append(self._cut(sharp, rows, columns))
            sample["sharp"] = sharps[count // 2]
            if count > 1:
                sample["sharps"] = np.stack(sharps)
        if self.flips and side:
            turns, mirrored = rng("flips", self.seed, epoch, index).integers((4, 2)).tolist()
            for key in sample.keys() - {"name"}:
                value = np.rot90(sample[key], turns, (-2, -1))
                value = value[..., ::-1] if mirrored else value
                sample[key] = value if key in IMAGE_KEYS else torch.from_numpy(value.copy())
        return sample
