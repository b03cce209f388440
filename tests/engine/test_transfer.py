"""What travels small arrives as the data set has it, bit for bit; tried on the CPU, where nothing need travel."""

import pytest
import torch

from codes.dataset import SpikeData
from codes.engine.loader import loader
from codes.engine.transfer import Packed, Transfer
from codes.registration import Camera, Registration
from codes.spike import EXPOSURE
from codes.tone import Tone
from tests.conftest import call
from tests.engine.test_run import MINI, mini, same, weights, without_time

CPU = torch.device("cpu")


def arrived(data, items):
    transfer = Transfer(data, CPU, small=True)
    (batch,) = loader(transfer.source, [items], workers=0)
    return transfer(batch)


@pytest.mark.parametrize("tone", ["linear", "srgb", "gamma:2.2"])
@pytest.mark.parametrize("side", [16, 32, 36, 0])
def test_the_same_batch(side, tone, copy):
    """Crops of 4, 8 and 9 bits a row, turned, and whole frames of 24."""
    Camera(Registration(), Tone(tone)).write(copy / "camera.json")
    crops = {"use_roi": side > 0, "roi_size": side or 4, "flips": True, "seed": 1}
    data, items = SpikeData(copy, "GOPRO", "train", use_sharp=True, **crops), [(0, 3), (2, 3), (1, 4)]
    expected, batch = [data[item] for item in items], arrived(data, items)
    assert batch["name"] == [sample["name"] for sample in expected]
    for key in ("blur", "sharp", "spike"):
        there = torch.stack([sample[key] for sample in expected])
        assert batch[key].dtype == there.dtype and torch.equal(batch[key], there)
    assert expected[0]["spike"].any() and expected[0]["blur"].std() > 0.01


def test_how_small_it_is(tiny):
    packed = Packed(SpikeData(tiny, "GOPRO", "train"))[0]
    assert packed["blur"].dtype == packed["spike"].dtype == torch.uint8
    assert packed["blur"].numel() == 3 * 64 * 96 and packed["spike"].numel() == EXPOSURE.total * 16 * 24 / 8


def test_what_cannot_be_read_and_what_is_no_spike_data(copy):
    sorted(copy.glob("train/blur_data/*/*.png"))[0].write_bytes(b"no image")
    data = SpikeData(copy, "GOPRO", "train", use_roi=True, roi_size=16, skip_bad=True)
    assert list(arrived(data, [0])) == ["faults"]
    batch = arrived(data, [0, 1])
    assert torch.equal(batch["spike"][0], data[1]["spike"]) and list(batch["faults"]) == [data.names[0]]
    other = [{"spike": torch.ones(3)}]
    transfer = Transfer(other, CPU, small=True)
    assert transfer.source is other and torch.equal(transfer(other[0])["spike"], torch.ones(3))


def test_a_gpu_gets_it_small(tiny):
    data = SpikeData(tiny, "GOPRO", "train")
    assert Transfer(data, CPU).source is data and not Transfer(data, CPU).pin


def test_a_run_whose_batches_travel_small(tiny, tmp_path, monkeypatch):
    """The same weights, bit for bit, and the same evaluation."""
    call(MINI, *mini(tiny, tmp_path / "float", "--max_steps", 4))
    monkeypatch.setattr(Transfer.__init__, "__defaults__", (True,))
    call(MINI, *mini(tiny, tmp_path / "small", "--max_steps", 4))
    assert same(weights(tmp_path / "float"), weights(tmp_path / "small"))
    assert without_time(tmp_path / "float") == without_time(tmp_path / "small")
