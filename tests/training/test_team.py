"""Several processes train what one would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
import torch
import torch.distributed as dist

from phicalc.schema import dump_yaml
from phicalc.training import run as run_module
from phicalc.training import train_from_yaml
from phicalc.training.run_folder import RunFolder
from phicalc.training.team import Team


def quiet(_: str) -> None:
    pass


def test_shares_of_a_batch():
    shares = [list(Team(rank, 3).share(range(7))) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    assert list(Team(2, 3).share([1, 2])) == []


def test_alone_nothing_happens():
    team, parameter = Team(), torch.ones(2, requires_grad=True)
    team.add_gradients([parameter])
    team.wait()
    assert parameter.grad is None
    assert team.add([1.0, 2.0]) == [1.0, 2.0]
    assert team.place(torch.device("cuda")) == torch.device("cuda")


@pytest.fixture
def mixed_labels(carbon_chain, tmp_path) -> Path:
    """Frames of which every third has no charges."""
    images = ase.io.read(carbon_chain, ":")
    for atoms in images[::3]:
        del atoms.calc.results["charges"]
    path = tmp_path / "mixed.xyz"
    ase.io.write(path, images, format="extxyz")
    return path


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_continue_as_one_would(settings, mixed_labels, tmp_path, monkeypatch):
    settings |= {
        # 22 frames: batches of 5, the last of 2; the 6 for validation are one batch, so that the
        # second process has nothing to do there
        "data": {"train": [str(mixed_labels)], "split": "key", "train_fraction": 0.92},
        "loss": {"energy": {"weight": 1.0, "final_weight": 5.0},
                 "charges": {"weight": 1.0, "kind": "mse", "required": False}},
        "batch_size": 5,
        "valid_batch_size": 5,
        "optimizer": {"name": "adamw", "weight_decay": 0.01, "lr": 0.003},
        "max_epochs": 3,
    }  # fmt: skip
    path = tmp_path / "train.yaml"
    path.write_text(dump_yaml(settings))
    for name in ("plot_curves", "plot_parity"):
        monkeypatch.setattr(run_module, name, lambda *_: None)
    train_from_yaml(path, [f"output={tmp_path / 'one'}"], quiet)

    def stop(self, row):
        original(self, row)
        raise KeyboardInterrupt

    original = RunFolder.save
    monkeypatch.setattr(RunFolder, "save", stop)
    with pytest.raises(KeyboardInterrupt):  # after the first epoch
        train_from_yaml(path, [f"output={tmp_path / 'two'}"], quiet)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "phicalc.training", str(path), f"output={tmp_path / 'two'}",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 3/3") == 1  # one of them speaks
    assert_same_numbers(tmp_path / "one", tmp_path / "two")


def assert_same_numbers(one: Path, other: Path) -> None:
    """Both histories are the same to rounding."""
    rows, others = (RunFolder(folder).read_history() for folder in (one, other))
    assert len(rows) == len(others) == 3
    for row, twin in zip(rows, others, strict=True):
        assert row.keys() == twin.keys()
        for key in row.keys() - {"seconds"}:
            assert twin[key] == pytest.approx(row[key], rel=1e-7), (other.name, key)
