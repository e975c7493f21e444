"""Saved states: whole or not there, of this version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from phicalc import state as state_module
from phicalc.state import State, read_state, write_state

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
    with pytest.raises(ValueError, match="not the state of a run.*remove s"):
        read_state(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not the state of a run"):
        read_state(path)


def test_states_of_other_versions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(state_module, "STATE_VERSION", 999)
    write_state(tmp_path / "s", STATE)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="another version of phicalc"):
        read_state(tmp_path / "s")
