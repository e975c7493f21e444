"""Formal charges are fitted to those of molecules before training, and then stay."""

import dataclasses

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc.checkpoint import load_model
from phicalc.data.config import KeysConfig
from phicalc.data.files import read_frames
from phicalc.graph import collate, from_ase, sum_per_structure
from phicalc.potential import build_potential
from phicalc.training import run as run_module
from phicalc.training import train
from phicalc.training.dataset import make_samples
from phicalc.training.initialization import initial_potential
from phicalc.training.integer_charges import means, surprise
from phicalc.training.states import doubts_of_states, fit_states

from ..tiny import flat_config


@pytest.fixture
def samples(carbon_chain):
    """Neutral chains and cations with one hydrogen more."""
    found = make_samples(read_frames(carbon_chain, KeysConfig()), 3.0)
    charges = np.array([float(sample.graph.total_charge) for sample in found])
    return [found[i] for charge in (0, 1) for i in np.flatnonzero(charges == charge)[:3]]


def config_of(head: str):
    return flat_config(
        elements=("H", "C"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1, head=head
    )


def surprises(potential, samples) -> torch.Tensor:
    """How unlikely the charge of each structure is to the states of its atoms."""
    graph = potential.prepare(collate([sample.graph for sample in samples]))
    with torch.no_grad():
        formal = potential(graph).formal
    return surprise(formal.probabilities, graph.batch, graph.total_charge)


def missing(potential, samples) -> torch.Tensor:
    """Return what mean states of atoms lack of the charge of each structure in e."""
    graph = potential.prepare(collate([sample.graph for sample in samples]))
    with torch.no_grad():
        read = means(potential(graph).formal.probabilities)
    return (sum_per_structure(read, graph) - graph.total_charge).abs()


@pytest.mark.parametrize("head", ["acks2", "latent+links", "solve+coulomb+links"])
def test_states_become_certain_of_the_charges_of_molecules(head, samples):
    assert {float(sample.graph.total_charge) for sample in samples} == {0.0, 1.0}
    potential = build_potential(config_of(head), seed=2)
    assert surprises(potential, samples).min() > 0.5
    assert missing(potential, samples).max() > 0.5
    (note,) = fit_states(potential, samples, seed=2)
    assert "formal charges fitted" in note
    assert surprises(potential, samples).max() < 0.75  # ln 2: two atoms that are alike share 1 e
    assert missing(potential, samples).max() < 0.05


@pytest.mark.parametrize("charge", [0.9, 0.1])
def test_of_states_with_the_right_sum_those_next_to_the_labels_are_taken(charge, tmp_path):
    atoms = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.4]])
    labels = {"energy": 0.0, "forces": np.zeros((2, 3)), "charges": np.array([charge, -charge])}
    atoms.calc = SinglePointCalculator(atoms, **labels)
    ase.io.write(tmp_path / "pair.xyz", [atoms] * 4, format="extxyz")
    pairs = make_samples(read_frames(tmp_path / "pair.xyz", KeysConfig()), 3.0)
    config = dataclasses.replace(config_of("acks2"), elements=("Na", "Cl"))
    potential = build_potential(config, seed=2)
    fit_states(potential, pairs, seed=2)
    graph = potential.prepare(pairs[0].graph)
    found = potential(graph).formal.charges.detach().numpy()
    np.testing.assert_allclose(found, [round(charge), -round(charge)], atol=0.02)


@pytest.mark.parametrize("seed", [1, 2])
def test_ammonium_is_charged_at_its_nitrogen_whatever_the_seed(seed, tmp_path):
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    frames, rng = [], np.random.default_rng(seed)
    for n_hydrogens, nitrogen in ((4, -0.2), (3, -0.9)):
        charge = float(n_hydrogens == 4)
        for _ in range(4):
            positions = np.vstack([np.zeros(3), 1.03 * corners[:n_hydrogens]])
            positions += rng.normal(0, 0.05, positions.shape)
            atoms = Atoms("N" + "H" * n_hydrogens, positions, info={"charge": charge})
            charges = np.array([nitrogen] + [0.3] * n_hydrogens)
            forces = np.zeros((1 + n_hydrogens, 3))
            atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces, charges=charges)
            frames.append(atoms)
    ase.io.write(tmp_path / "ammonia.xyz", frames, format="extxyz")
    samples = make_samples(read_frames(tmp_path / "ammonia.xyz", KeysConfig()), 3.0)
    config = dataclasses.replace(config_of("acks2"), elements=("H", "N"))
    potential = build_potential(config, seed=seed)
    fit_states(potential, samples, seed=seed)
    for sample in samples:
        z = potential(potential.prepare(sample.graph)).formal.charges.detach().numpy()
        expected = np.where(sample.graph.atomic_numbers == 7, float(sample.graph.total_charge), 0)
        np.testing.assert_allclose(z, expected, atol=1e-4)


def test_bonded_hydrogen_is_united_with_what_it_is_bonded_to_and_no_other_is():
    elements = ("H", "O", "Na")
    config = dataclasses.replace(
        config_of("acks2"), elements=elements, reference_energies=(0.0, 0.0, 0.0)
    )
    potential = build_potential(config, seed=1)
    starting = potential.head.starting
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    others = Atoms("H2NaH", [[9, 0, 0], [9, 0.74, 0], [0, 9, 0], [1.9, 9, 0]])
    graph = potential.prepare(from_ase(water + others, potential.cutoff))
    element = potential.element_of_number[graph.atomic_numbers]
    charges = torch.tensor([-0.5, 0.3, 0.2, 0.1, -0.1, 0.7, -0.7], dtype=torch.float64)
    links = starting.links(graph, element)
    united = starting.formal.hydrogens.united(charges, element, links)
    expected = torch.tensor([0.0, 0.0, 0.0, 0.1, -0.1, 0.7, -0.7], dtype=torch.float64)
    torch.testing.assert_close(united, expected)


def test_heads_without_formal_charges_have_nothing_to_fit(samples):
    assert fit_states(build_potential(config_of("qeq"), seed=2), samples, seed=2) == []


def test_states_of_a_parent_that_do_not_suit_the_data_are_said(samples):
    potential = build_potential(config_of("latent+links"), seed=2)
    (before,) = doubts_of_states(potential, samples)
    assert "integer_fragments trains them" in before
    fit_states(potential, samples[:3], seed=2)
    (after,) = doubts_of_states(potential, samples[:3])
    assert "trains them" not in after
    assert doubts_of_states(build_potential(config_of("qeq"), seed=2), samples) == []


def test_training_leaves_states_alone_unless_they_are_penalized(
    make_config, settings, samples, tmp_path, monkeypatch
):
    for name in ("plot_curves", "plot_parity"):
        monkeypatch.setattr(run_module, name, lambda *_: None)

    def states(weight: float) -> dict[str, torch.Tensor]:
        config = make_config(
            output=str(tmp_path / f"run{weight}"),
            max_epochs=1,
            model={**settings["model"], "head": "latent+links"},
            penalties={"integer_fragments": weight},
        )
        potential, _ = load_model(train(config, report=lambda _: None).model)
        weights = potential.head.starting.formal.state_dict()
        return {name: weight.double() for name, weight in weights.items()}

    left, trained = states(0.0), states(1.0)
    start, _ = initial_potential(config_of("latent+links"), samples, seed=1)
    assert left.keys() == start.head.starting.formal.state_dict().keys()
    assert max(float((left[name] - trained[name]).abs().max()) for name in left) > 1e-4
    assert not any(p.requires_grad for p in start.head.starting.formal.parameters())
