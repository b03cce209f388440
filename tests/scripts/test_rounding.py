"""The rounding that stands for TF32 and bf16."""

import torch

from scripts.dev.rounding import rounded


def test_seven_bits_are_bfloat16():
    values = torch.cat([torch.randn(10000, generator=torch.manual_seed(0)), torch.tensor([0.0, -1.0, 1 + 2**-8])])
    assert torch.equal(rounded(values, 7), values.bfloat16().float())


def test_ten_bits_are_the_mantissa_of_half():
    values = torch.rand(10000, generator=torch.manual_seed(0)) + 0.5
    assert torch.equal(rounded(values, 10), values.half().float())
    assert rounded(torch.arange(3), 10).dtype == torch.int64
