from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from phicalc.training import state as state_module
from phicalc.training.run_folder import RunFolder
from phicalc.training.state import (
    State,
    pack_optimizer,
    pack_random_state,
    read_state,
    unpack_optimizer,
    unpack_random_state,
    write_state,
)

STATE = State({"a": torch.arange(3), "b": torch.tensor(1.5)}, {"text": "é", "x": 0.1, "n": None})


def test_state_comes_back_exactly(tmp_path):
    write_state(tmp_path / "s", STATE)
    found = read_state(tmp_path / "s")
    assert found.document == STATE.document
    assert found.tensors.keys() == STATE.tensors.keys()
    assert all(torch.equal(found.tensors[k], STATE.tensors[k]) for k in STATE.tensors)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_failing_disk_leaves_the_previous_state(tmp_path, monkeypatch, moment):
    write_state(tmp_path / "s", STATE)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    place = state_module.os if moment == "fsync" else Path
    monkeypatch.setattr(place, moment, fail)
    with pytest.raises(OSError, match="No space left"):
        write_state(tmp_path / "s", State({"a": torch.zeros(9)}, {"text": "new"}))
    assert read_state(tmp_path / "s").document["text"] == "é"
    assert os.listdir(tmp_path) == ["s"]  # nothing half-written lies about


def test_damaged_states_are_refused(tmp_path):
    path = tmp_path / "s"
    write_state(path, STATE)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="not a state of a training run.*remove s"):
        read_state(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a state of a training run"):
        read_state(path)


def test_states_of_other_versions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(state_module, "STATE_VERSION", 999)
    write_state(tmp_path / "s", STATE)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="another version of phicalc"):
        read_state(tmp_path / "s")


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
