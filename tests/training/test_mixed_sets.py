"""Sets with different labels in one training, and weights that change during it."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc.training import run as run_module
from phicalc.training import train
from phicalc.training.run_folder import RunFolder


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    for name in ("plot_curves", "plot_parity"):
        monkeypatch.setattr(run_module, name, lambda *_: None)


def quiet(_: str) -> None:
    pass


def labelled(atoms, rng, **labels):
    """Atoms with made-up labels."""
    forces = rng.normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0 * len(atoms), forces=forces, **labels)
    return atoms


@pytest.fixture
def mixed(rng, tmp_path):
    """Cells with stress beside molecules with charges and dipoles, and bare ones."""
    frames = []
    for i in range(4):
        cell = bulk("NaCl", "rocksalt", a=5.5 + 0.1 * i, cubic=True)
        cell.rattle(0.05, seed=i)
        frames.append(labelled(cell, rng, stress=1e-3 * rng.normal(size=6)))
        pair = molecule("NaCl")
        pair.rattle(0.05, seed=i)
        labels = {"charges": np.array([0.8, -0.8]), "dipole": np.array([0.0, 0.0, 1.5])}
        frames.append(labelled(pair, rng, **labels if i % 2 else {}))
    path = tmp_path / "mixed.xyz"
    ase.io.write(path, frames, format="extxyz")
    return path


def settings_of(mixed, **terms):
    return {
        "data": {"train": [str(mixed)], "valid_count": 2},
        "model": {
            "elements": ["Na", "Cl"], "cutoff": 3.5,
            "backbone": {
                "name": "nequip", "layers": 1, "channels": 4, "l_max": 1, "correlation": 1,
                "radial_basis": 4,
            },
        },
        "loss": {name: {"weight": 1.0, "required": False} for name in terms} | terms,
    }  # fmt: skip


def test_cells_and_molecules_are_learned_together(make_config, mixed):
    loose = {"weight": 1.0, "required": False}
    changes = settings_of(mixed, stress=loose, charges=loose, dipole=loose)
    config = make_config(**changes, max_epochs=8)
    result = train(config, report=quiet)
    first, *_, last = RunFolder(config.output).read_history()
    for name in ("loss", "stress_rmse"):
        assert last[f"train_{name}"] < first[f"train_{name}"], name
    assert {"stress", "charges", "dipole"} <= set(result.metrics["train"]["units"])


@pytest.mark.parametrize("name", ["stress", "charges", "dipole"])
def test_missing_labels_are_refused_unless_allowed(make_config, mixed, name):
    config = make_config(**settings_of(mixed, **{name: {"weight": 1.0}}))
    with pytest.raises(ValueError, match=rf"no {name} .*loss.{name}.required to false"):
        train(config, report=quiet)


def test_late_weights_and_a_continued_run(make_config, few_frames, tmp_path, monkeypatch):
    few = {"data": {"train": [str(few_frames)], "split": "key"}, "batch_size": 2, "max_epochs": 4}
    early = {"energy": {"weight": 0.1}, "forces": {"weight": 1.0}}
    late = {
        "energy": {"weight": 0.1, "final_weight": 500.0},
        "forces": {"weight": 1.0, "final_weight": 0.5},
        "final_from": 0.5,
        "final_over": 0.25,
    }
    rows = {}
    for name, loss in (("early", early), ("late", late)):
        config = make_config(**few, loss=loss, output=str(tmp_path / name))
        train(config, report=quiet)
        rows[name] = [{**row, "seconds": 0} for row in RunFolder(config.output).read_history()]
    for one, other in zip(rows["early"][:2], rows["late"][:2], strict=True):
        assert one["train_loss"] == other["train_loss"]
        assert one["valid_forces_rmse"] == other["valid_forces_rmse"]
        assert 10 * one["valid_loss"] < other["valid_loss"]  # by the weights of the end, always
    assert 10 * rows["early"][3]["train_loss"] < rows["late"][3]["train_loss"]
    original, calls = RunFolder.save, 0

    def kill(self, state):
        nonlocal calls
        calls += 1
        original(self, state)
        if calls in (10, 14):
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save", kill)
    changes = {"checkpoint": {"every_steps": 1}, "output": str(tmp_path / "torn")}
    config = make_config(**few, loss=late, **changes)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config, report=quiet)
    train(config, report=quiet)
    again = [{**row, "seconds": 0} for row in RunFolder(config.output).read_history()]
    assert again == rows["late"]


def test_changing_weights_need_validation(make_config, settings):
    data = {**settings["data"], "split": "random", "valid_count": 0}
    loss = {"energy": {"weight": 1.0, "final_weight": 2.0}}
    with pytest.raises(ValueError, match="keep frames for validation"):
        train(make_config(data=data, loss=loss), report=quiet)
