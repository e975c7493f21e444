from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.data.config import KeysConfig
from phicalc.data.frames import label_atoms
from phicalc.derivatives import Prediction
from phicalc.graph import AtomicGraph, collate, from_ase
from phicalc.training.dataset import join, make_samples
from phicalc.training.loss import (
    ErrorSums,
    dipoles,
    errors,
    label_counts,
    loss_value,
    measure,
)
from phicalc.training.objective import LossConfig, TermConfig

F64 = torch.float64


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("norm", (5 + 0) / 2),
        ("mse", (9 + 16) / 6),
        ("huber", (2 * (5 - 0.5 * 2) + 0) / 2),  # delta 2: linear part for the length 5
    ],
)
def test_kinds_of_terms(kind, expected):
    error = tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    assert measure(error, TermConfig(1.0, kind, delta=2.0)).item() == pytest.approx(expected)


def test_huber_is_quadratic_inside_and_smooth_at_delta():
    term = TermConfig(1.0, "huber", delta=2.0)
    assert measure(tensor([[1.0]]), term).item() == 0.5
    below, above = (measure(tensor([[2.0 + d]]), term).item() for d in (-1e-6, 1e-6))
    assert above - below == pytest.approx(2.0 * 2e-6, rel=1e-3)


@pytest.mark.parametrize("kind", ["norm", "mse", "huber"])
def test_gradient_of_a_perfect_prediction_is_zero(kind):
    error = torch.zeros(3, 3, dtype=F64, requires_grad=True)
    measure(error, TermConfig(1.0, kind)).backward()
    assert error.grad is not None
    assert not error.grad.any()


def batch_and_prediction():
    """Two hydrogen molecules and a cell of copper with errors that are easy to add up."""
    images = [molecule("H2"), molecule("H2"), bulk("Cu", cubic=True)]
    for atoms in images:
        atoms.info |= {"energy": 0.0, "dipole": np.zeros(3), "stress": np.zeros(6)}
        atoms.arrays |= {"forces": np.zeros((len(atoms), 3)), "charges": np.zeros(len(atoms))}
    frames = [label_atoms(atoms, KeysConfig()) for atoms in images]
    batch = join(make_samples(frames, 3.0))
    forces = torch.zeros(8, 3, dtype=F64)
    forces[0] = tensor([3.0, 4.0, 0.0])
    stress = torch.zeros(3, 3, 3, dtype=F64)
    stress[2] = 0.01 * torch.eye(3, dtype=F64)
    energy = tensor([0.2, -0.4, 0.8])
    charges = tensor([0.5, -0.5, 0, 0, 0, 0, 0, 0])
    return batch, Prediction(energy, torch.zeros(8, dtype=F64), forces, stress, charges, None, {})


def test_terms_by_hand():
    batch, prediction = batch_and_prediction()
    found = errors(prediction, batch.labels, batch.graph)
    assert found["energy"].ravel().tolist() == [0.1, -0.2, 0.2]  # per atom
    config = LossConfig(
        energy=TermConfig(2.0), forces=TermConfig(3.0), stress=TermConfig(5.0),
        charges=TermConfig(7.0, "mse"),
    )  # fmt: skip
    found["stress"] = found["stress"][2:]
    cell = collate([from_ase(bulk("Cu", cubic=True), 3.0)])
    alone = LossConfig(TermConfig(), TermConfig(), stress=TermConfig(5.0))
    virial = 0.01 * math.sqrt(3) * 3.61**3 / 4
    assert loss_value(found, cell, alone, 0.5).total.item() == pytest.approx(5 * virial / 0.5)
    config = LossConfig(TermConfig(2.0), TermConfig(3.0), charges=TermConfig(7.0, "mse"))
    value = loss_value(found, batch.graph, config, 0.5)
    assert value.terms["energy"].item() == pytest.approx((0.1 + 0.2 + 0.2) / 3 / 0.5)
    assert value.terms["forces"].item() == pytest.approx(5 / 8 / 0.5)
    assert value.terms["charges"].item() == pytest.approx(0.5 / 8)  # not scaled
    by_hand = 2 * 0.5 / 3 / 0.5 + 3 * 5 / 8 / 0.5 + 7 * 0.5 / 8
    assert value.total.item() == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("progress", "names"),
    [(0.0, ["charges"]), (0.2, ["forces", "charges"]), (0.5, ["energy", "forces"]),
     (0.999, ["energy", "forces"]), (1.0, ["energy", "forces"])],
)  # fmt: skip
def test_terms_count_from_start_to_end(progress, names):
    config = LossConfig(
        energy=TermConfig(2.0, start=0.5),
        forces=TermConfig(3.0, start=0.2),
        charges=TermConfig(7.0, end=0.5),
    )
    batch, prediction = batch_and_prediction()
    found = errors(prediction, batch.labels, batch.graph)
    value = loss_value(found, batch.graph, config.at(progress), 0.5)
    assert list(value.terms) == names
    assert config.at(progress).at(0.7) == config.at(progress)
    total = sum(getattr(config, name).weight * term.item() for name, term in value.terms.items())
    assert value.total.item() == pytest.approx(total)


def test_dipoles_of_atoms_add_to_those_of_charges():
    batch, prediction = batch_and_prediction()
    own = torch.zeros(8, 3, dtype=F64)
    own[0], own[1], own[2] = tensor([0.1, 0, 0]), tensor([0, 0.2, 0]), tensor([0, 0, 0.4])
    without = errors(prediction, batch.labels, batch.graph)["dipole"]
    found = errors(prediction._replace(atomic_dipoles=own), batch.labels, batch.graph)["dipole"]
    assert (found - without)[:2].tolist() == pytest.approx(tensor([[0.1, 0.2, 0], [0, 0, 0.4]]))


def test_metrics_by_hand_and_without_missing_labels():
    sums = ErrorSums()
    nan = float("nan")
    sums.add({"energy": tensor([[0.003], [nan]]), "forces": tensor([[0.1, -0.1, 0.4]])})
    sums.add({"energy": tensor([[-0.001]]), "charges": tensor([[nan]])})
    assert sums.metrics() == pytest.approx(
        {
            "energy_mae": 2.0,
            "energy_rmse": math.sqrt(5),
            "forces_mae": 200.0,
            "forces_rmse": 1e3 * math.sqrt(0.06),
        }
    )


def test_dipole_of_a_neutral_molecule_is_the_sum_of_charge_times_position():
    graph = from_ase(molecule("H2O"), 3.0)
    charges = tensor([-0.8, 0.4, 0.4])
    expected = (charges[:, None] * graph.positions).sum(0)
    assert torch.allclose(dipoles(charges, graph)[0], expected)


def test_dipole_of_an_ion_does_not_depend_on_the_origin(rng):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])
    charges = tensor([-1.2, 0.2])
    first = dipoles(charges, from_ase(atoms, 3.0))
    atoms.positions += [5, -3, 2]
    assert torch.allclose(dipoles(charges, from_ase(atoms, 3.0)), first)
    centre = 1.008 / (1.008 + 15.999)  # of mass, along z
    assert first[0, 2].item() == pytest.approx(-1.2 * -centre + 0.2 * (1 - centre), rel=1e-6)


def test_periodic_structures_have_no_dipole():
    graphs = [from_ase(molecule("H2"), 3.0), from_ase(bulk("Cu", cubic=True), 3.0)]
    graph: AtomicGraph = collate(graphs)
    moments = dipoles(torch.zeros(graph.n_atoms, dtype=F64), graph)
    assert moments.isnan().all(dim=1).tolist() == [False, True]


@pytest.mark.parametrize("kind", ["norm", "mse", "huber"])
def test_missing_labels_are_left_out_only_where_that_is_said(kind):
    there = tensor([[3.0, 0.0, 4.0], [0.1, 0.0, 0.0]]).requires_grad_()
    error = torch.cat([there, torch.full((3, 3), math.nan, dtype=F64)])
    masked = measure(error, TermConfig(1.0, kind, required=False))
    assert masked.item() == pytest.approx(measure(there, TermConfig(1.0, kind)).item())
    assert measure(error, TermConfig(1.0, kind)).isnan()
    masked.backward()
    assert there.grad is not None
    assert there.grad.isfinite().all()
    nothing = measure(error[2:], TermConfig(1.0, kind, required=False))
    assert nothing.item() == 0


def test_parts_of_a_batch_add_up_to_the_whole():
    images = [molecule(name) for name in ("H2O", "CH4", "N2")]
    for i, atoms in enumerate(images):
        atoms.info["energy"] = 1.0 + i
        atoms.arrays["forces"] = 0.1 * (1 + i) * np.ones((len(atoms), 3))
        if i != 1:
            atoms.arrays["charges"] = 0.3 * np.ones(len(atoms))
    samples = make_samples([label_atoms(atoms, KeysConfig()) for atoms in images], 3.0)
    counts = label_counts(samples)
    labelled = {"energy": 3, "forces": 10, "stress": 0, "charges": 5, "dipole": 0}
    labelled |= {"polarizability": 0, "born_charges": 0}
    assert counts == {**labelled, "structures": 3}
    config = LossConfig(charges=TermConfig(2.0, "mse", required=False))

    def loss(part, counts):
        batch = join(part)
        n = batch.graph.n_atoms
        zero = torch.zeros(batch.graph.n_structures, dtype=F64)
        prediction = Prediction(
            zero, torch.zeros(n, dtype=F64), torch.zeros(n, 3, dtype=F64), None,
            torch.zeros(n, dtype=F64), None, {},
        )  # fmt: skip
        found = errors(prediction, batch.labels, batch.graph)
        return loss_value(found, batch.graph, config, 0.5, counts).total.item()

    whole = loss(samples, None)
    assert loss(samples, counts) == pytest.approx(whole)
    assert loss(samples[:1], counts) + loss(samples[1:], counts) == pytest.approx(whole)


def test_sums_of_errors_of_several_processes_add_up(rng):
    one, other, both = ErrorSums(), ErrorSums(), ErrorSums()
    first, second = (tensor(rng.normal(size=(4, 3))) for _ in range(2))
    one.add({"forces": first})
    other.add({"forces": second, "charges": second[:, :1]})
    together = [a + b for a, b in zip(one.numbers(), other.numbers(), strict=True)]
    both.add_numbers(together)
    expected = ErrorSums()
    expected.add({"forces": torch.cat([first, second]), "charges": second[:, :1]})
    assert both.metrics() == pytest.approx(expected.metrics())


@pytest.mark.parametrize("required", [True, False])
def test_predictions_that_are_no_numbers_are_no_missing_labels(required):
    atoms = molecule("H2O")
    atoms.info["energy"] = 1.0
    frame = label_atoms(atoms, KeysConfig())
    batch = join(make_samples([frame], 3.0))
    nothing = torch.full((3, 3), float("nan"), dtype=F64)
    unknown = tensor([float("nan")])
    prediction = Prediction(unknown, unknown.expand(3), nothing, None, None, None, {})
    found = errors(prediction, batch.labels, batch.graph)
    assert found["energy"].tolist() == [[math.inf]]
    assert found["forces"].isnan().all()  # of those there is no label
    assert measure(found["energy"], TermConfig(1.0, required=required)) == math.inf
    sums = ErrorSums()
    sums.add(found)
    assert sums.metrics() == {"energy_mae": math.inf, "energy_rmse": math.inf}
