"""A GPU gives what the CPU gives: predictions, calculators, training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phicalc import PhiCalculator
from phicalc.compiled import CompiledPredictor
from phicalc.derivatives import Prediction, predict
from phicalc.graph import from_ase
from phicalc.potential import Potential, build_potential
from phicalc.training import config_from_dict, train
from phicalc.training.run_folder import RunFolder

from .tiny import flat_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

HEADS = ("none", "latent", "qeq", "random", "spectral", "dirichlet", "solve", "solve+coulomb")


def make_potential(head: str, **settings: Any) -> Potential:
    config = flat_config(
        elements=("Na", "Cl"), cutoff=3.5, layers=2, channels=4, l_max=2, correlation=2,
        average_neighbors=6.0, head=head, **settings,
    )  # fmt: skip
    return build_potential(config, seed=3).double().eval().requires_grad_(False)


def salt(*repeats: int, pbc: tuple[bool, bool, bool] = (True, True, True)) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(repeats)
    atoms.rattle(0.1, seed=4)
    atoms.pbc = pbc
    if not all(pbc):
        atoms.center(vacuum=5.0, axis=2)
    return atoms


def predicted(potential: Potential, atoms: Atoms, device: str) -> Prediction:
    potential = potential.to(device)
    graph = from_ase(atoms, potential.cutoff).to(device)
    return predict(potential, potential.prepare(graph), stress=bool(atoms.pbc.all()))


def assert_same(found: Prediction, expected: Prediction, tolerance: float) -> None:
    for name in ("energy", "forces", "stress", "charges", "atomic_dipoles"):
        first, second = getattr(found, name), getattr(expected, name)
        assert (first is None) == (second is None)
        if second is not None:
            scale = max(1e-3, float(second.abs().max()))
            assert first.is_cuda
            torch.testing.assert_close(first.cpu(), second.cpu(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, False, False)])
def test_predictions_are_those_of_the_cpu(head, pbc):
    potential = make_potential(head, atomic_dipoles=head not in ("none", "spectral"))
    atoms = salt(2, 1, 1, pbc=pbc)
    expected = predicted(potential, atoms, "cpu")
    assert_same(predicted(potential, atoms, "cuda"), expected, 1e-10)


def test_sums_on_a_mesh_and_iterated_charges():
    potential = make_potential("qeq", force_accuracy=1e-8)
    atoms = salt(5, 4, 4)
    expected = predicted(potential, atoms, "cpu")
    assert_same(predicted(potential, atoms, "cuda"), expected, 1e-6)


@pytest.mark.parametrize("repeats", [(2, 1, 1), (4, 4, 4)])
def test_wish_to_compile_does_no_harm(repeats, tmp_path):
    potential = make_potential("qeq").float().to("cuda")
    graph = potential.prepare(from_ase(salt(*repeats), potential.cutoff).to("cuda"))
    predictor = CompiledPredictor(potential, True, tmp_path)
    assert_same(predictor(graph, stress=True), predict(potential, graph, stress=True), 1e-5)


def test_calculator():
    results = {}
    for device in ("cpu", "cuda"):
        atoms = molecule("CH3CH2OH")
        atoms.calc = PhiCalculator("organics", device=device, dtype="float64", compile=False)
        atoms.get_forces()
        results[device] = atoms.calc.results
        results[device]["born"] = atoms.calc.get_born_effective_charges(atoms)
    for name, expected in results["cpu"].items():
        np.testing.assert_allclose(results["cuda"][name], expected, rtol=1e-9, atol=1e-9)


def test_training_takes_the_same_course(tmp_path: Path) -> None:
    data = Path(__file__).parent / "data" / "xtb_carbon_chain_30.xyz"
    losses = {}
    for device in ("cpu", "cuda"):
        settings = {
            "output": str(tmp_path / device), "device": device, "dtype": "float64",
            "data": {"train": [str(data)], "split": "key"}, "batch_size": 4, "max_epochs": 3,
            "model": flat_config(
                elements=("H", "C"), cutoff=3.0, layers=1, channels=4
            ).to_dict(),
            "compile": False,
        }  # fmt: skip
        train(config_from_dict(settings), report=lambda _: None)
        rows = RunFolder(tmp_path / device).read_history()
        losses[device] = [[row["train_loss"], row["valid_loss"]] for row in rows]
        assert json.loads((tmp_path / device / "metrics.json").read_text())["valid"]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-5)
