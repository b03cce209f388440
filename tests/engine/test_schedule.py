import pytest
import torch

from codes.engine.schedule import cosine, learning_rate


def torch_rates(scheduler, optimiser, steps):
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs_also_beyond_its_end():
    """Officially the LDN steps CosineAnnealingLR once per batch: past T_max the rate climbs again."""
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    expected = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=101), optimiser, 500)
    assert [1e-3 * cosine(step / 101) for step in range(500)] == pytest.approx(expected, abs=1e-9)


def test_named_schedules():
    assert learning_rate("constant", 0.5, 7, 10) == 0.5
    assert learning_rate("cosine", 1.0, 0, 10) == 1 and learning_rate("cosine", 1.0, 5, 10) == pytest.approx(0.5)
    assert learning_rate("cosine", 1.0, 25, 10) == pytest.approx(0)  # never climbs again
    rates = [learning_rate("onecycle", 2e-3, step, 1000) for step in range(1001)]
    assert (
        rates[0] == pytest.approx(2e-3 / 25) and rates[100] == pytest.approx(2e-3) and rates[1000] == pytest.approx(0)
    )
    assert rates.index(max(rates)) == 100
    assert all(a < b for a, b in zip(rates[:100], rates[1:101], strict=True))
    assert all(a > b for a, b in zip(rates[100:1000], rates[101:], strict=True))
    with pytest.raises(ValueError, match="expected cosine"):
        learning_rate("linear", 1, 0, 1)
