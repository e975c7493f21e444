"""The examples of docs/extending.md: they train, run, and give what they should."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.checkpoint import load_model
from phicalc.md import MDConfig, read_log, run_md
from phicalc.neighbors import neighbor_list, search
from phicalc.neighbors.engines import search_of
from phicalc.training import config_from_dict, train

from .md.systems import Springs, cluster

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
CHAINS = Path(__file__).parent / "data" / "xtb_carbon_chain_30.xyz"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the folder of the examples on the path, as PYTHONPATH does."""
    names = [path.stem for path in EXAMPLES.glob("*.py")]
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in names:
        sys.modules.pop(name, None)


def test_examples_are_short_and_shown():
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    examples = sorted(EXAMPLES.glob("*.py"))
    assert len(examples) == 4
    for path in examples:
        assert f'--8<-- "examples/{path.name}"' in page
        lines = path.read_text(encoding="utf-8").splitlines()
        assert sum(bool(line.strip()) for line in lines) <= 40, path.name


def test_backbone_and_head_train_and_give_forces_that_are_derivatives(tmp_path):
    settings = {
        "output": str(tmp_path / "run"),
        "data": {"train": [str(CHAINS)], "split": "key"},
        "model": {
            "elements": ["H", "C"],
            "cutoff": 3.0,
            "backbone": {"name": "backbone:SmallNet", "width": 8},
            "head": {"name": "head:Equalized", "hardness": 4.0},
        },
        "max_epochs": 2,
        "device": "cpu",
        "dtype": "float64",
        "compile": False,
        "uncertainty": False,
    }
    train(config_from_dict(settings), report=lambda line: None)
    potential, _ = load_model(tmp_path / "run" / "model", allow_import=True)
    assert type(potential.backbone).__name__ == "SmallNet"
    assert type(potential.head).__name__ == "Equalized"
    atoms = ase.io.read(CHAINS, 0)
    atoms.calc = PhiCalculator(potential, dtype="float64", device="cpu")
    force = atoms.get_forces()[3, 1]
    assert atoms.get_charges().sum() == pytest.approx(atoms.info.get("charge", 0.0), abs=1e-9)
    energies = []
    for step in (1e-4, -1e-4):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[3, 1] += step
        energies.append(moved.get_potential_energy())
    assert force == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-5)


@pytest.mark.parametrize("atoms", [molecule("C6H6"), bulk("NaCl", "rocksalt", a=5.6)], ids=len)
def test_engine_finds_the_pairs_that_others_find(atoms, monkeypatch):
    spec = importlib.util.spec_from_file_location("example_engine", EXAMPLES / "engine.py")
    engine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engine)
    monkeypatch.setitem(sys.modules, "phicalc.neighbors.engines.scipy", engine)
    monkeypatch.setattr(search, "ENGINES", ("vesin", "scipy"))
    assert search_of("scipy") is engine.search
    given = (
        torch.tensor(atoms.positions),
        torch.tensor(atoms.cell.array),
        torch.tensor(atoms.pbc),
    )
    expected = neighbor_list(*given, 5.0, engine="vesin")
    found = neighbor_list(*given, 5.0, engine="scipy")
    assert len(expected.edge_index[0]) > 50
    assert torch.equal(found.edge_index, expected.edge_index)
    assert torch.equal(found.edge_shifts, expected.edge_shifts)


def test_ensemble_holds_its_temperature_and_conserves_its_energy(tmp_path):
    atoms = cluster()
    atoms.calc = Springs(0.0)
    config = MDConfig(
        thermostat="ensemble:Andersen",
        temperature=300.0,
        thermostat_time=50.0,
        timestep=0.5,
        steps=1500,
        seed=3,
    )
    run_md(atoms, config, tmp_path, progress=False)
    log = read_log(tmp_path / "log.csv")
    assert log["temperature_K"][50:].mean() == pytest.approx(300, rel=0.15)
    assert np.ptp(log["conserved_energy_eV"]) < 0.05 * np.ptp(log["potential_energy_eV"])
