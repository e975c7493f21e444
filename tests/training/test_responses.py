"""Polarizabilities and Born charges in the loss."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phicalc import PhiCalculator
from phicalc.data.config import KeysConfig
from phicalc.data.frames import label_atoms
from phicalc.derivatives import RESPONSES, predict
from phicalc.graph import AtomicGraph, collate, from_ase
from phicalc.potential import Potential
from phicalc.response import born_effective_charges, polarizability
from phicalc.training import train_from_yaml
from phicalc.training.dataset import check_responses, join, make_samples
from phicalc.training.loss import errors, loss_value
from phicalc.training.objective import LossConfig, TermConfig

from ..physics.conftest import tiny_potential

CUTOFF = 4.0


def acid() -> Atoms:
    atoms = molecule("HCOOH")
    atoms.rattle(0.05, seed=1)
    return atoms


def ion() -> Atoms:
    atoms = molecule("H2O")
    atoms.positions += [3.0, -2.0, 1.0]  # the response of an ion does not depend on the origin
    atoms.info["charge"] = 1.0
    return atoms


def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.rattle(0.05, seed=2)
    return atoms


def batch_of(potential: Potential, *structures: Atoms) -> AtomicGraph:
    return collate([potential.prepare(from_ase(atoms, CUTOFF)) for atoms in structures])


@pytest.mark.parametrize(
    ("head", "structures"),
    [
        ({"name": "acks2", "formal_charges": "element"}, (acid, ion, salt)),
        ({"name": "qeq"}, (acid, ion)),
    ],
    ids=["acks2", "qeq"],
)
def test_batches_give_the_responses_of_each_structure(head, structures) -> None:
    potential = tiny_potential(head=head)
    graph = batch_of(potential, *(make() for make in structures))
    plain = predict(potential, graph)
    for create_graph in (False, True):
        found = predict(potential, graph, create_graph=create_graph, responses=RESPONSES)
        torch.testing.assert_close(found.energy, plain.energy, rtol=0, atol=1e-10)
        torch.testing.assert_close(found.forces, plain.forces, rtol=0, atol=1e-9)
        alone = [potential.prepare(from_ase(make(), CUTOFF)) for make in structures]
        expected = torch.stack([polarizability(potential, each) for each in alone])
        torch.testing.assert_close(found.polarizability, expected, rtol=1e-8, atol=1e-8)
        expected = torch.cat([born_effective_charges(potential, each) for each in alone])
        torch.testing.assert_close(found.born_charges, expected, rtol=1e-8, atol=1e-8)


def labelled(seed: int = 0) -> list[Atoms]:
    """Structures with responses that no model has."""
    rng, frames = np.random.default_rng(seed), []
    for atoms in (acid(), ion()):
        atoms.info["polarizability"] = rng.normal(size=(3, 3))
        atoms.arrays["bec"] = rng.normal(size=(len(atoms), 9))
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("name", RESPONSES)
def test_gradients_of_the_loss_are_its_differences(name: str) -> None:
    potential = tiny_potential(head={"name": "acks2", "hardness": "environment"})
    frames = [label_atoms(atoms, KeysConfig()) for atoms in labelled()]
    samples = make_samples(frames, CUTOFF)
    batch = join([each._replace(graph=potential.prepare(each.graph)) for each in samples])
    off = {label: TermConfig(0.0) for label in ("energy", "forces")}
    config = LossConfig(**{**off, name: TermConfig(1.0, "mse")})

    def loss() -> torch.Tensor:
        found = predict(potential, batch.graph, create_graph=True, responses=[name])
        differences = errors(found, batch.labels, batch.graph)
        return loss_value(differences, batch.graph, config, scale=1.0).total

    weights = {
        key: weight
        for key, weight in potential.named_parameters()
        if key in ("head.raw_hardness", "head.softness.offset", "embedding")
    }
    assert len(weights) == 3
    gradients = torch.autograd.grad(loss(), list(weights.values()))
    for (key, weight), gradient in zip(weights.items(), gradients, strict=True):
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)).to(weight)
        values = []
        for step in (-2, -1, 1, 2):
            with torch.no_grad():
                weight.add_(1e-3 * step * direction)
            values.append(float(loss().detach()))
            with torch.no_grad():
                weight.sub_(1e-3 * step * direction)
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / 12e-3
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5), key


def test_files_hold_born_charges_by_displacement() -> None:
    atoms = acid()
    atoms.arrays["bec"] = np.arange(9.0 * len(atoms)).reshape(-1, 9)
    atoms.info["polarizability"] = [1.0, 2.0, 3.0, 0.4, 0.5, 0.6]  # xx, yy, zz, yz, xz, xy
    labels = label_atoms(atoms, KeysConfig()).labels
    assert labels.born_charges[0, 0].tolist() == [0.0, 3.0, 6.0]  # ∂μ_x/∂r_xyz
    assert labels.polarizability[0, 0].tolist() == [1.0, 0.6, 0.5]


@pytest.mark.parametrize(
    ("name", "settings", "make", "message"),
    [
        ("polarizability", {"head": "latent"}, acid, "'latent'.*have none"),
        (
            "polarizability",
            {"head": "qeq", "charge_feedback": "embedding"},
            acid,
            "'embedding' have none",
        ),
        ("born_charges", {"head": "spectral"}, acid, "'spectral'.*have none"),
        ("born_charges", {"head": "qeq"}, salt, "1 periodic frames have this label"),
        ("polarizability", {"head": "acks2"}, salt, "formal_charges: element"),
    ],
)
def test_responses_that_a_model_lacks_are_refused(name, settings, make, message) -> None:
    potential = tiny_potential(**settings)
    atoms = make()
    atoms.info["polarizability"] = np.eye(3)
    atoms.arrays["bec"] = np.zeros((len(atoms), 9))
    samples = make_samples([label_atoms(atoms, KeysConfig())], CUTOFF)
    config = LossConfig(**{name: TermConfig(1.0)})
    with pytest.raises(ValueError, match=message):
        check_responses(samples, config, potential)
    bare = make_samples([label_atoms(make(), KeysConfig())], CUTOFF)
    if make is salt:  # frames without the label are welcome
        check_responses(bare, config, potential)


def test_training_learns_polarizabilities(tmp_path: Path) -> None:
    teacher = tiny_potential(head={"name": "acks2", "formal_charges": "element"})
    calculator, frames = PhiCalculator(teacher, dtype="float64"), []
    for seed in range(6):
        atoms = acid()
        atoms.rattle(0.05, seed=seed)
        atoms.info["polarizability"] = calculator.get_polarizability(atoms)
        atoms.arrays["bec"] = (
            calculator.get_born_effective_charges(atoms).transpose(0, 2, 1).reshape(-1, 9)
        )
        frames.append(atoms)
    ase.io.write(tmp_path / "frames.xyz", frames, format="extxyz")
    (tmp_path / "train.yaml").write_text(f"""
data: {{train: [{tmp_path / "frames.xyz"}], split: last, valid_count: 1, test_count: 1}}
model:
  elements: [H, C, O]
  cutoff: 3.0
  backbone: {{name: nequip, layers: 1, channels: 4, l_max: 1, correlation: 1}}
  head: {{name: acks2, hardness: environment}}
loss:
  energy: {{weight: 0.0}}
  forces: {{weight: 0.0}}
  polarizability: {{weight: 100.0}}
  born_charges: {{weight: 1.0}}
optimizer: {{lr: 0.03}}
output: {tmp_path / "run"}
max_epochs: 25
batch_size: 2
compile: false
""")
    lines: list[str] = []
    train_from_yaml(tmp_path / "train.yaml", [], lines.append)
    epochs = [line for line in lines if line.startswith("epoch")]
    assert "polarizability" in epochs[0]
    assert "born_charges" in epochs[0]

    def valid(line: str, label: str) -> float:
        return float(line.split("valid loss")[1].split(f"{label} ")[1].split()[0])

    for label in RESPONSES:
        assert valid(epochs[-1], label) < 0.7 * valid(epochs[0], label)
    assert any("polarizability" in line for line in lines[-8:])
