"""Saved states: whole or not there, undamaged, of this version."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from phicalc import state as state_module
from phicalc.state import State, previous_state, read_state, write_state

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
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {"s", "s.previous"}  # nothing half-written lies about


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


def flipped(content: bytes, bit: int) -> bytes:
    """Return the content with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "s"
    write_state(path, STATE)
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(ValueError, match="is damaged.*remove s to start"):
            read_state(path)


def test_the_state_before_is_read_if_the_last_one_is_damaged(tmp_path, rng):
    path = tmp_path / "s.safetensors"
    write_state(path, STATE)
    write_state(path, State({"a": torch.zeros(9)}, {"text": "new"}))
    content = path.read_bytes()
    path.write_bytes(flipped(content, int(rng.integers(8 * len(content)))))
    with pytest.warns(UserWarning, match="s.safetensors is damaged.*before, s.previous.safetens"):
        assert read_state(path).document["text"] == "é"
    older = previous_state(path)
    older.write_bytes(older.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"s.safetensors is damaged.*s.previous.*remove s.safe"):
        read_state(path)


def test_the_first_state_of_a_run_removes_that_of_an_earlier_run(tmp_path):
    path = tmp_path / "s"
    write_state(path, STATE)
    write_state(path, STATE)
    assert previous_state(path).exists()
    path.unlink()
    write_state(path, STATE)
    assert not previous_state(path).exists()


def test_states_without_checksum_are_read_with_a_warning(tmp_path):
    text = json.dumps({"version": 1, "text": "old"})
    save_file({"a": torch.zeros(1)}, tmp_path / "s", metadata={"state": text})
    with pytest.warns(UserWarning, match="earlier version of phicalc, without a checksum"):
        assert read_state(tmp_path / "s").document == {"text": "old"}


def test_numbers_of_numpy_are_numbers(tmp_path):
    document = {"a": np.int64(3), "b": [np.float32(0.5)], "c": np.arange(2)}
    write_state(tmp_path / "s", State({}, document))
    assert read_state(tmp_path / "s").document == {"a": 3, "b": [0.5], "c": [0, 1]}
    with pytest.raises(TypeError, match="a state cannot hold"):
        write_state(tmp_path / "s", State({}, {"a": object()}))


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be opened elsewhere")
def test_files_go_into_the_folder_that_was_opened(tmp_path):
    """Its name may have become that of another folder."""
    (tmp_path / "run").mkdir()
    descriptor = os.open(tmp_path / "run", os.O_RDONLY)
    try:
        write_state(tmp_path / "run/s", STATE, descriptor)
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "run").mkdir()
        write_state(tmp_path / "run/s", STATE, descriptor)
    finally:
        os.close(descriptor)
    assert os.listdir(tmp_path / "run") == []
    assert sorted(os.listdir(tmp_path / "moved")) == ["s", "s.previous"]
