from __future__ import annotations

import torch
from torch import nn

from phicalc.training.packing import (
    pack_optimizer,
    pack_random_state,
    unpack_optimizer,
    unpack_random_state,
)
from phicalc.training.run_folder import RunFolder


def test_optimizer_goes_on_as_if_nothing_had_happened():
    def run(steps: int, interrupt_at: int | None) -> nn.Linear:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for step in range(steps):
            if step == interrupt_at:
                packed = pack_optimizer(optimizer)
                optimizer = torch.optim.Adam(model.parameters(), lr=0.7)
                unpack_optimizer(optimizer, *packed)
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
        return model

    assert torch.equal(run(5, None).weight, run(5, 3).weight)


def test_random_numbers_go_on():
    saved = pack_random_state()
    first = torch.rand(3)
    unpack_random_state(saved)
    assert torch.equal(torch.rand(3), first)


def test_history_drops_what_the_state_has_not_seen(tmp_path):
    folder = RunFolder(tmp_path)
    for epoch in (1, 2, 3):
        folder.append({"epoch": epoch, "loss": 0.1 * epoch})
    with folder.history.open("a") as stream:
        stream.write('{"epoch": 4, "lo')  # killed while writing
    assert [row["epoch"] for row in folder.read_history()] == [1, 2, 3]
    folder.cut_history(2)
    folder.append({"epoch": 3, "loss": 7.0})
    assert [row["loss"] for row in folder.read_history()] == [0.1, 0.2, 7.0]
