"""Below the distances of the training data the network does not extrapolate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

from phicalc.backbone.overlap import held
from phicalc.graph import from_ase
from phicalc.potential import build_potential

from .tiny import flat_config


def config_with(**backbone):
    flat = {"layers": 1, "channels": 4, "l_max": 1, "correlation": 2, "head": "none"}
    return flat_config(elements=("H", "C"), cutoff=3.0, **flat, **backbone)


def test_lengths_fall_by_a_tenth_at_most_and_smoothly():
    lengths = torch.linspace(0.05, 2.0, 4001, dtype=torch.float64, requires_grad=True)
    found = held(lengths, torch.full_like(lengths, 1.2))
    assert torch.equal(found[lengths >= 1.2], lengths[lengths >= 1.2])
    assert float(found.detach().min()) == pytest.approx(0.9 * 1.2, abs=1e-12)
    assert torch.equal(held(lengths, torch.zeros_like(lengths)), lengths)
    (slope,) = torch.autograd.grad(found.sum(), lengths, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), lengths)
    for values, largest in ((found, 0.001), (slope, 0.01), (bend, 0.3)):  # steps of 0.0005 Å
        assert float(values.detach().diff().abs().max()) < largest
    assert float(slope.detach().min()) >= 0


def test_energies_below_the_nearest_distance_change_no_more():
    """Numbers at this distance and beyond are those of a network that does not know it."""
    held_back = build_potential(config_with(nearest_distances={"H-C": 1.0, "C-C": 1.3}), seed=1)
    free = build_potential(config_with(), seed=1)

    def energies(potential, distance: float) -> float:
        atoms = Atoms("CH", [[0, 0, 0], [0, 0, distance]])
        return float(potential(potential.prepare(from_ase(atoms, 3.0))).energy.detach())

    for distance in (1.0, 1.1, 2.5):
        assert energies(held_back, distance) == energies(free, distance)
    nearer = (0.79, 0.5, 0.2)
    assert np.ptp([energies(held_back, d) for d in nearer]) < 1e-6  # eV, single precision
    assert np.ptp([energies(free, d) for d in nearer]) > 0.1


def test_atoms_without_neighbors_have_an_energy():
    potential = build_potential(config_with(nearest_distances={"C-C": 1.3}), seed=1)
    graph = potential.prepare(from_ase(Atoms("C"), 3.0))
    assert np.isfinite(float(potential(graph).energy.detach()))


def test_names_of_pairs_are_checked():
    with pytest.raises(ValueError, match="must name pairs such as 'H-O', got 'HC'"):
        config_with(nearest_distances={"HC": 1.0})
