from __future__ import annotations

import pytest
import torch
from torch import nn

from phicalc.training.config import OptimizerConfig, ScheduleConfig
from phicalc.training.optimization import MovingAverage, Schedule, make_optimizer


def test_cosine_with_warmup_and_hold():
    config = ScheduleConfig("cosine", warmup_epochs=0.5, hold=0.5, final=0.01)
    schedule = Schedule(config, 2.0, steps_per_epoch=4, max_epochs=10)
    rates = [schedule.rate(step) for step in range(40)]
    assert rates[:3] == [1.0, 2.0, 2.0]  # two steps of warm-up
    assert rates[20] == 2.0
    assert rates[-1] == pytest.approx(0.02)
    middle = schedule.rate(20) * (0.01 + 0.99 * 0.5)
    assert (rates[29] + rates[30]) / 2 == pytest.approx(middle, rel=1e-3)
    assert all(a >= b for a, b in zip(rates[2:], rates[3:], strict=False))


def test_constant_rate():
    schedule = Schedule(ScheduleConfig("constant", warmup_epochs=0.0), 0.5, 4, 10)
    assert {schedule.rate(step) for step in range(100)} == {0.5}


def test_plateau_halves_after_patience_and_stops_at_the_floor():
    config = ScheduleConfig("plateau", warmup_epochs=0.0, factor=0.5, patience=2, final=0.2)
    schedule = Schedule(config, 1.0, 4, 10)
    rates = []
    for metric in (5.0, 4.0, 4.0, 4.5, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6):
        schedule.observe(metric)
        rates.append(schedule.rate(0))
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]


def test_plateau_goes_on_where_it_was():
    config = ScheduleConfig("plateau", warmup_epochs=0.0, patience=3)
    one, other = (Schedule(config, 1.0, 4, 10) for _ in range(2))
    other.restore(one.state())  # before any validation
    for metric in (2.0, 3.0, 3.0):
        one.observe(metric)
    other.restore(one.state())
    for schedule in (one, other):
        schedule.observe(3.0)
    assert one.rate(0) == other.rate(0) == 0.5


def test_weight_decay_spares_vectors():
    model = nn.Linear(2, 3)
    optimizer = make_optimizer(model, OptimizerConfig("adamw", lr=0.1, weight_decay=0.5))
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(model.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, before["bias"])


def test_moving_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = MovingAverage(model, decay=0.15)
    expected = 0.0
    for step, value in enumerate((1.0, 2.0, 4.0)):
        nn.init.constant_(model.weight, value)
        average.update()
        decay = min(0.15, (1 + step) / (10 + step))  # 0.1 at first, then 0.15
        expected = decay * expected + (1 - decay) * value
    assert average.weights["weight"].item() == pytest.approx(expected, rel=1e-6)
    kept = model.weight
    with average.applied():
        assert model.weight is kept  # in place: compiled code keeps its tensors
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)
    assert model.weight.item() == 4.0


def test_moving_average_is_taken_back_after_an_error():
    model = nn.Linear(1, 1)
    average = MovingAverage(model, 0.9)
    nn.init.constant_(model.weight, 3.0)
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert model.weight.item() == 3.0


def test_no_averaging_with_zero_decay():
    model = nn.Linear(2, 2)
    average = MovingAverage(model, 0.0)
    for _ in range(3):
        nn.init.normal_(model.weight)
        average.update()
    assert torch.equal(average.weights["weight"], model.weight)
