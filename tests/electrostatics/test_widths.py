"""Gaussian widths: bounds, plans that survive their training, and what they do to energies."""

from __future__ import annotations

import pytest
import torch
from ase.build import molecule

from phicalc.derivatives import predict
from phicalc.electrostatics import GaussianWidths
from phicalc.electrostatics.charges.elements import covalent_radius
from phicalc.electrostatics.widths import RANGE
from phicalc.graph import from_ase
from phicalc.potential import Potential

from ..physics.conftest import ELEMENTS, STRUCTURES, tiny_potential

RADII = torch.tensor([covalent_radius(symbol) for symbol in ELEMENTS], dtype=torch.float64)
ALL = torch.arange(len(ELEMENTS))


def set_widths(potential: Potential, raw: float) -> None:
    with torch.no_grad():
        potential.head.widths.raw.fill_(raw)


def test_fixed_widths_have_no_weights() -> None:
    widths = GaussianWidths(RADII.tolist())
    assert not list(widths.parameters())
    assert torch.equal(widths(ALL), RADII)
    assert torch.equal(widths.widest(ALL), RADII)


def test_trained_widths_start_from_the_fixed_ones_and_stay_within_bounds() -> None:
    widths = GaussianWidths(RADII.tolist(), trained=True)
    torch.testing.assert_close(widths(ALL), RADII)
    for raw, factor in ((50.0, RANGE), (-50.0, 1 / RANGE)):
        torch.nn.init.constant_(widths.raw, raw)
        torch.testing.assert_close(widths(ALL), factor * RADII)
    torch.testing.assert_close(widths.widest(ALL), RANGE * RADII)


def test_one_width_for_all() -> None:
    widths = GaussianWidths([1.5], trained=True)
    assert widths(ALL).tolist() == pytest.approx([1.5] * len(ALL))


@pytest.mark.parametrize("head", ["qeq", "latent"])
@pytest.mark.parametrize("kind", ["molecule", "charged-slab", "charged-crystal"])
def test_plans_made_in_training_serve_all_widths(head: str, kind: str) -> None:
    """Samples are planned once, before the first step."""
    potential = tiny_potential(head=head, smearing="trained", force_accuracy=1e-6)
    graph = from_ase(STRUCTURES[kind](), potential.cutoff)
    planned = potential.train().prepare(graph)
    for raw in (-3.0, 0.0, 3.0):
        set_widths(potential, raw)
        exact = potential.eval().prepare(graph, potential.coulomb_planner())
        found, expected = predict(potential, planned), predict(potential, exact)
        torch.testing.assert_close(found.forces, expected.forces, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.charges, expected.charges, rtol=0, atol=1e-6)
        potential.train()


def test_a_kept_planner_sees_that_widths_have_changed() -> None:
    potential = tiny_potential(smearing="trained", force_accuracy=1e-6).eval()
    graph = from_ase(STRUCTURES["crystal"](), potential.cutoff)
    planner = potential.coulomb_planner()
    set_widths(potential, -3.0)
    potential.prepare(graph, planner)
    set_widths(potential, 3.0)
    found = predict(potential, potential.prepare(graph, planner))
    expected = predict(potential, potential.prepare(graph))
    torch.testing.assert_close(found.forces, expected.forces, rtol=0, atol=1e-6)


def test_widths_change_charges() -> None:
    potential = tiny_potential(smearing="trained").eval()
    graph = potential.prepare(from_ase(molecule("CH3CH2OH"), potential.cutoff))
    before = predict(potential, graph).charges
    set_widths(potential, 0.5)
    assert (predict(potential, graph).charges - before).abs().max() > 1e-3
