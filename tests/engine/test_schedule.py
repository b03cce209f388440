import pytest
import torch

from codes.engine.schedule import change_of_end, cosine, learning_rate


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
    with pytest.raises(ValueError, match="expected official, cosine"):
        learning_rate("linear", 1, 0, 1)


def test_the_official_rate_is_the_recipes():
    assert learning_rate("official", 1.0, 3, 10, official=0.125) == 0.125
    assert learning_rate("constant", 1.0, 3, 10, official=0.125) == 1.0


def test_what_another_number_of_steps_does_to_the_rate():
    note = change_of_end("cosine", 2.0, 5, before=10, now=20)
    assert "20 steps instead of 10" in note and "from step 5 on the rate is 1.71e+00 instead of 1.00e+00" in note
    assert change_of_end("cosine", 2.0, 5, 10, 10) == change_of_end("constant", 2.0, 5, 10, 20) == ""
    assert change_of_end("onecycle", 2.0, 0, 10, 20) == ""
