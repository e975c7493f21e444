"""A backbone and a head from outside: trained, saved, loaded, compiled and run in dynamics.

`foreign/painn.py` and `foreign/equalization.py` are all that was written for them: nothing in
phicalc knows their names.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms

from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.checkpoint import load_model, read_card
from phicalc.compiled import CompiledPredictor
from phicalc.derivatives import predict
from phicalc.graph import collate, from_ase
from phicalc.md import MDConfig, run_md
from phicalc.potential import Potential
from phicalc.training.initialization import inherited_potential
from phicalc.training.run import train_from_yaml

CHAINS = Path(__file__).parent / "data" / "xtb_carbon_chain_30.xyz"
TRAINING = """
output: {output}
data: {{train: [{frames}], split: key}}
model:
  elements: [H, C]
  cutoff: 3.0
  backbone: {{name: "painn:PaiNN", features: 4, layers: 2}}
  head: {{name: {head}, hardness: {hardness}}}
batch_size: 8
max_epochs: 3
device: cpu
dtype: float64
compile: false
"""
HEADS = {"qeq": "element", '"equalization:Equalization"': 4.0}


@pytest.fixture(autouse=True, scope="module")
def foreign_code() -> Iterator[None]:
    """Put the folder of the foreign files on the path, as PYTHONPATH does."""
    folder = str(Path(__file__).parent / "foreign")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    for name in ("painn", "equalization"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module", params=HEADS)
def model(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model with the foreign backbone, with a head of phicalc or the foreign one."""
    folder = tmp_path_factory.mktemp("foreign")
    file = folder / "train.yaml"
    hardness = HEADS[request.param]
    text = TRAINING.format(
        output=folder / "run", frames=CHAINS, head=request.param, hardness=hardness
    )
    file.write_text(text, encoding="utf-8")
    lines: list[str] = []
    train_from_yaml(file, report=lines.append)
    assert any("backbone (PaiNN)" in line and "standardized_maps" in line for line in lines)
    return folder / "run" / "model"


def loaded(model: Path) -> Potential:
    return load_model(model, allow_import=True)[0].requires_grad_(False)


def chain(n: int = 0) -> Atoms:
    return ase.io.read(CHAINS, n)


def test_training_changes_foreign_weights(model):
    backbone = loaded(model).backbone
    assert type(backbone).__name__ == "PaiNN"
    assert type(backbone).__module__ == "painn"
    rows = (model.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3  # one for each epoch


def test_foreign_code_is_loaded_with_permission_only(model, monkeypatch):
    for name in ("painn", "equalization"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ValueError, match="allow_import=True"):
        load_model(model)
    with pytest.raises(ValueError, match="allow_import=True"):
        PhiCalculator(model)
    assert "painn" not in sys.modules
    assert yaml.safe_load(str(read_card(model).potential["backbone"]["name"])) == "painn:PaiNN"
    load_model(model, allow_import=True)
    assert "painn" in sys.modules


def test_fine_tuning_imports_what_the_configuration_names(model):
    config = loaded(model).config
    potential, _ = inherited_potential(
        str(model), config, [], given_references={"H": 0.0, "C": 0.0}, dtype=torch.float64
    )
    assert type(potential.backbone).__name__ == "PaiNN"
    other = type(config).from_dict({**config.to_dict(), "backbone": "nequip", "head": "none"})
    with pytest.raises(ValueError, match="allow_import=True"):
        inherited_potential(str(model), other, [])


def test_forces_of_foreign_models_are_derivatives(model):
    atoms = chain()
    atoms.calc = PhiCalculator(loaded(model), dtype="float64", device="cpu")
    forces = atoms.get_forces()
    assert abs(atoms.get_charges().sum() - atoms.info.get("charge", 0.0)) < 1e-9
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[3, 1] += sign * 1e-4
        energies.append(moved.get_potential_energy())
    assert forces[3, 1] == pytest.approx(-(energies[0] - energies[1]) / 2e-4, abs=1e-6)


def test_foreign_models_turn_with_the_structure(model):
    calc = PhiCalculator(loaded(model), dtype="float64", device="cpu")
    atoms = chain()
    energy, forces = calc.get_potential_energy(atoms), calc.get_forces(atoms)
    matrix = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    atoms.positions = atoms.positions @ matrix
    assert calc.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(calc.get_forces(atoms), forces @ matrix, rtol=0, atol=1e-9)


def test_dynamics_of_foreign_models_continue_exactly(model, tmp_path):
    def run(steps: int, folder: str, **options: bool) -> np.ndarray:
        atoms = chain()
        atoms.calc = PhiCalculator(loaded(model), dtype="float64", device="cpu")
        config = MDConfig(steps=steps, timestep=0.5, temperature=300.0, checkpoint_interval=5)
        run_md(atoms, config, tmp_path / folder, progress=False, **options)
        return ase.io.read(tmp_path / folder / "final.extxyz").positions

    whole = run(10, "whole")
    run(5, "parts")
    np.testing.assert_array_equal(run(10, "parts", restart=True), whole)


@pytest.mark.thorough
@pytest.mark.parametrize("model", ['"equalization:Equalization"'], indirect=True)
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++)")
def test_compiled_foreign_models_give_the_same_forces(model, tmp_path):
    potential = loaded(model)
    one, two = (from_ase(chain(n), potential.cutoff) for n in (0, 1))
    compiled = CompiledPredictor(potential, True, tmp_path)
    for graph in (potential.prepare(one), potential.prepare(collate([one, two]))):
        found, expected = compiled(graph), predict(potential, graph)
        for name in ("energy", "forces", "charges"):
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-9
            )
    assert [function is not None for function in compiled.functions.values()] == [True]
    assert all(half is not None for half in compiled._hybrid.backbone.halves.values())
