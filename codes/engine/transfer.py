"""How samples travel from the files to the device that computes on them.

For a CPU the loader's processes make samples ready. To a GPU they travel small: images as the bytes of their files,
spikes as bits (of 137×180×320 1 MB instead of 8), and are opened there into the same numbers. Crops are cut and turned
before: what is cut off need not travel, and turning changes no number of bytes.

A copy from pinned memory, which the loader gives for a GPU, does not keep the host waiting.
"""

import numpy as np
import torch

from codes.dataset import IMAGE_KEYS, SpikeData


class Packed(torch.utils.data.Dataset):
    """The samples of a data set as they travel: images uint8, spikes uint8 ``(137, h, w / 8)``, rounded up.

    Args:
        dataset: the data set.
    """

    def __init__(self, dataset: SpikeData):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item) -> dict:
        sample = self.dataset.stored(item)
        if "spike" in sample:  # else it could not be read
            sample["spike"] = torch.from_numpy(np.packbits(sample["spike"].numpy(), axis=-1, bitorder="little"))
        return sample


class Transfer:
    """The way of a data set's batches to a device.

    Args:
        dataset: the data set; one of another kind than :class:`codes.dataset.SpikeData` travels as it is.
        device: where to.
        small: whether to travel as bytes and bits; None: to a GPU.

    Attributes:
        source: what the loader is to read.
        pin: whether the loader is to give pinned memory.
    """

    def __init__(self, dataset: torch.utils.data.Dataset, device: torch.device, small: bool | None = None):
        self.device, self.pin = device, device.type == "cuda"
        self._data = dataset if isinstance(dataset, SpikeData) and (self.pin if small is None else small) else None
        self.source = dataset if self._data is None else Packed(self._data)
        if self._data is not None:
            # Light by bytes in a table: the numbers are then the loader's, whatever the device makes of powers.
            self._light = torch.from_numpy(self._data.light(np.arange(256, dtype=np.uint8))).to(device)
            self._bits = torch.arange(8, dtype=torch.uint8, device=device)

    def __call__(self, batch: dict) -> dict:
        """A batch of the loader's, on the device, and as the data set itself would give it."""
        there = {
            key: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }
        if self._data is not None and "spike" in there:
            width = there["blur"].shape[-1] // self._data.scale
            there |= {key: self._light[there[key].int()] for key in IMAGE_KEYS if key in there}
            there["spike"] = self._unpacked(there["spike"])[..., :width].contiguous()
        return there

    def _unpacked(self, packed: torch.Tensor) -> torch.Tensor:
        """Bits as zeros and ones: uint8 ``(..., W / 8)`` to ``(..., W)``, the least significant first."""
        return packed[..., None].bitwise_right_shift(self._bits).bitwise_and_(1).flatten(-2)
