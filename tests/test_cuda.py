"""A GPU gives what the CPU gives: predictions, calculators, training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phicalc import PhiCalculator
from phicalc.captured import CapturedPredictor
from phicalc.captured.predictor import kind_of
from phicalc.captured.room import room_for
from phicalc.derivatives import Prediction, predict
from phicalc.graph import AtomicGraph, from_ase
from phicalc.md import MDConfig, run_md
from phicalc.potential import Potential, build_potential
from phicalc.structures import water_box
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


def graphs(head: str, structures: list[Atoms]) -> tuple[Potential, list[AtomicGraph]]:
    """Structures prepared on the CPU, for a potential on the GPU."""
    potential = make_potential(head, repulsion="zbl")
    found = [potential.prepare(from_ase(each, potential.cutoff)) for each in structures]
    return potential.to("cuda"), found


def shaken(atoms: Atoms, n: int, scale: float = 0.03) -> list[Atoms]:
    rng, found = np.random.default_rng(0), []
    for _ in range(n):
        atoms = atoms.copy()
        atoms.positions += rng.normal(scale=scale, size=atoms.positions.shape)
        found.append(atoms)
    return found


@pytest.mark.parametrize("head", ["none", "latent", "latent+links", "qeq", "acks2"])
@pytest.mark.parametrize("pbc", [True, False])
def test_recorded_steps_are_those_of_plain_torch(head, pbc):
    atoms = salt(2, 1, 1) if pbc else salt(1, 1, 1, pbc=(False, False, False))
    potential, structures = graphs(head, shaken(atoms, 5))
    predictor = CapturedPredictor(potential, "auto")
    for graph in structures:
        found = predictor(graph, stress=pbc)
        expected = predict(potential, graph.to("cuda"), stress=pbc)
        for name in ("energy", "forces", "stress", "charges"):
            mine, theirs = getattr(found, name), getattr(expected, name)
            if theirs is not None:
                torch.testing.assert_close(mine.cpu(), theirs.cpu(), rtol=0, atol=1e-6)
        again = predictor(graph, stress=pbc)
    assert torch.equal(predictor(graph, stress=pbc).forces, again.forces)
    (step,) = predictor.steps.values()
    assert step is not None


def test_overflow_is_recorded_anew():
    atoms = salt(2, 1, 1)
    dense = atoms.copy()
    dense.set_cell(atoms.cell * 0.8, scale_atoms=True)
    potential, structures = graphs("acks2", [atoms, atoms, dense, dense, atoms])
    predictor = CapturedPredictor(potential, "auto")
    for graph in structures:
        found = predictor(graph, stress=True)
        expected = predict(potential, graph.to("cuda"), stress=True)
        torch.testing.assert_close(found.forces.cpu(), expected.forces.cpu(), rtol=0, atol=1e-6)
        last = predictor.steps.get(kind_of(graph, True))
        assert last is None or last.room.holds(room_for(graph))


@pytest.mark.parametrize("head", ["latent", "acks2"])
def test_fused_operations_predict_the_same(head):
    potential, structures = graphs(head, shaken(salt(2, 1, 1), 3))
    predictor = CapturedPredictor(potential, True)
    for graph in structures:
        found = predictor(graph, stress=True)
        expected = predict(potential, graph.to("cuda"), stress=True)
        torch.testing.assert_close(found.forces.cpu(), expected.forces.cpu(), rtol=0, atol=1e-6)


def npt(folder: Path) -> list[bytes]:
    """Run 200 steps; return what they end in."""
    atoms = water_box(64, seed=1)
    atoms.calc = PhiCalculator("water-small", device="cuda", compile=True)
    atoms.calc.model.predictor.mode = "auto"  # which records steps as they are
    settings = {"ensemble": "npt", "steps": 200, "timestep": 0.5, "temperature": 300.0, "seed": 1}
    run_md(atoms, MDConfig(**settings), folder)
    end = ase.io.read(folder / "final.extxyz")
    return [end.positions.tobytes(), end.cell.array.tobytes(), end.get_forces().tobytes()]


def test_runs_are_equal_to_the_last_bit(tmp_path):
    assert npt(tmp_path / "first") == npt(tmp_path / "second")


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
