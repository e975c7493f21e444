"""Charge equilibration: the right charges, their derivatives, and what must never happen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.derivatives import predict
from phicalc.electrostatics import CoulombSettings, CoulombSum, equilibrate, plan_coulomb
from phicalc.electrostatics.charges.elements import _PAULING, covalent_radius, electronegativity
from phicalc.graph import AtomicGraph, collate, from_ase
from phicalc.potential import Potential
from phicalc.units import COULOMB_CONSTANT

from ..physics.conftest import tiny_potential


def planned(atoms: Atoms, width: float = 0.6) -> tuple[AtomicGraph, torch.Tensor]:
    graph = from_ase(atoms, 1.0)
    smearing = torch.full((len(atoms),), width, dtype=torch.float64)
    return plan_coulomb(graph, smearing, CoulombSettings(1e-10)), smearing


def functional(
    coulomb: CoulombSum, chi: torch.Tensor, hardness: torch.Tensor, q: torch.Tensor
) -> torch.Tensor:
    return (chi * q + 0.5 * hardness * q**2 + 0.5 * q * coulomb.potential(q)).sum()


def test_two_atoms_have_the_analytic_charges() -> None:
    graph, smearing = planned(Atoms("HF", positions=[[0, 0, 0], [0, 0, 3.0]]))
    chi = torch.tensor([1.0, 4.0], dtype=torch.float64)
    hardness = torch.tensor([2.0, 3.0], dtype=torch.float64)
    coulomb = CoulombSum(graph, smearing)
    q = equilibrate(coulomb, chi, hardness, torch.tensor([[0.5]], dtype=torch.float64))
    a = coulomb.matrix()[0]
    # d/dq of the functional with q₂ = Q − q₁:
    top = (chi[1] - chi[0]) + 0.5 * (hardness[1] + a[1, 1] - a[0, 1])
    first = top / (a[0, 0] + a[1, 1] - 2 * a[0, 1] + hardness.sum())
    torch.testing.assert_close(q, torch.stack([first, 0.5 - first]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("charge", [0.0, 1.0])
def test_charges_minimise_the_functional_at_fixed_total_charge(charge: float) -> None:
    graph, smearing = planned(bulk("NaCl", "rocksalt", a=5.64).repeat(2))
    n = graph.n_atoms
    chi, hardness = torch.randn(n).double(), 1 + torch.rand(n).double()
    coulomb = CoulombSum(graph, smearing)
    q = equilibrate(coulomb, chi, hardness, torch.tensor([[charge]], dtype=torch.float64))
    assert float(q.sum()) == pytest.approx(charge, abs=1e-12)
    minimum = functional(coulomb, chi, hardness, q)
    for seed in range(5):
        step = torch.randn(n, generator=torch.Generator().manual_seed(seed)).double()
        step -= step.mean()
        assert functional(coulomb, chi, hardness, q + 0.01 * step) > minimum


def test_batch_equals_loop_with_unequal_sizes() -> None:
    potential = tiny_potential(charge_feedback="embedding", total_charge_embedding=True)
    crystal = bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1))
    crystal.rattle(0.1, seed=1)
    charged = crystal.copy()
    charged.info["charge"] = -1
    structures = [molecule("CH3CH2OH"), Atoms("Na", info={"charge": 1}), crystal, charged,
                  molecule("H2O"), Atoms("C")]  # fmt: skip
    graphs = [potential.prepare(from_ase(atoms, potential.cutoff)) for atoms in structures]
    batch = predict(potential, collate(graphs))
    singles = [predict(potential, graph) for graph in graphs]
    torch.testing.assert_close(batch.energy, torch.cat([s.energy for s in singles]),
                               rtol=1e-10, atol=1e-10)  # fmt: skip
    for name in ("forces", "charges", "atomic_energies"):
        single = torch.cat([getattr(s, name) for s in singles])
        scale = float(single.abs().max())
        torch.testing.assert_close(getattr(batch, name), single, rtol=0, atol=1e-10 * scale)
    prepared_together = potential.prepare(
        collate([from_ase(atoms, potential.cutoff) for atoms in structures])
    )
    again = predict(potential, prepared_together)
    torch.testing.assert_close(again.energy, batch.energy, rtol=1e-12, atol=1e-10)


def _charges(potential: Potential, atoms: Atoms) -> torch.Tensor:
    graph = potential.prepare(from_ase(atoms, potential.cutoff))
    charges = potential(graph).charges
    assert charges is not None
    return charges.detach()


def test_a_far_ion_moves_the_charges_here() -> None:
    potential = tiny_potential()
    water = molecule("H2O")
    alone = _charges(potential, water)
    near_ion = water + Atoms("Na", positions=[[0, 0, 12.0]])
    assert (_charges(potential, near_ion)[:3] - alone).abs().max() > 1e-3


def test_charges_move_when_the_total_charge_moves() -> None:
    potential, atoms = tiny_potential(), molecule("H2O")
    neutral = _charges(potential, atoms)
    atoms.info["charge"] = 1
    assert (_charges(potential, atoms) - neutral).abs().min() > 1e-3


@pytest.mark.parametrize("pbc", [False, True])
def test_coulomb_energy_is_in_ev_whatever_the_scale_of_the_network(pbc: bool) -> None:
    atoms = molecule("CH3OH", cell=[8, 8, 8], pbc=pbc)
    terms = []
    for scale in (1.0, 7.0):
        potential = tiny_potential(energy_scale=scale)
        terms.append(predict(potential, potential.prepare(from_ase(atoms, 4.0))).terms)
    assert terms[0]["electrostatic"].item() == terms[1]["electrostatic"].item()
    assert 7 * terms[0]["short_range"].item() == pytest.approx(terms[1]["short_range"].item())


def test_ions_at_a_distance_attract_by_coulombs_law() -> None:
    # Fixed charges through a hardness so large that nothing flows: E(R) − E(∞) → k_e q₁q₂/R.
    chi = torch.tensor([-1e6, 1e6], dtype=torch.float64)
    hardness = torch.full((2,), 1e6, dtype=torch.float64)

    def energy(distance: float) -> float:
        graph, smearing = planned(Atoms("NaCl", positions=[[0, 0, 0], [distance, 0, 0]]))
        coulomb = CoulombSum(graph, smearing)
        q = equilibrate(coulomb, chi, hardness)
        return float(functional(coulomb, chi, hardness, q))

    for distance in (15.0, 40.0):
        expected = -COULOMB_CONSTANT * (1 / distance - 1e-4)
        assert energy(distance) - energy(1e4) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_of_the_charges_are_right_up_to_the_order(order: int) -> None:
    graph, smearing = planned(molecule("CH3OH"))
    n = graph.n_atoms
    chi, hardness = torch.randn(n).double(), 1 + torch.rand(n).double()
    direction, weight = torch.randn(n, 3).double(), torch.randn(n).double()

    def observable(step: torch.Tensor) -> torch.Tensor:
        moved = graph._replace(positions=graph.positions + step * direction)
        coulomb = CoulombSum(moved, smearing)
        return weight @ equilibrate(coulomb, chi, hardness, derivatives=order)

    def derivative(step: torch.Tensor, n_times: int) -> torch.Tensor:
        value = observable(step)
        for _ in range(n_times):
            (value,) = torch.autograd.grad(value, step, create_graph=True)
        return value

    steps = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.0, -1e-4, 1e-4)]
    exact = derivative(steps[0], order).item()
    below, above = (derivative(s, order - 1).item() for s in steps[1:])
    assert exact == pytest.approx((above - below) / 2e-4, rel=1e-5)


def test_charges_respond_to_electronegativity_hardness_and_total_charge() -> None:
    graph, smearing = planned(molecule("CH3OH"))
    n = graph.n_atoms

    def charges(
        chi: torch.Tensor, hardness: torch.Tensor, total: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        coulomb = CoulombSum(graph._replace(positions=positions), smearing)
        return equilibrate(coulomb, chi, hardness, total)

    inputs = (torch.randn(n).double(), 1 + torch.rand(n).double(), torch.zeros(1, 1).double(),
              graph.positions)  # fmt: skip
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(charges, inputs)
    assert torch.autograd.gradgradcheck(charges, inputs, atol=1e-4)


def test_starting_electronegativities_are_paulings() -> None:
    pymatgen = pytest.importorskip("pymatgen.core", reason="pymatgen is the oracle here")
    symbols = [symbol for symbol in ("H", "C", "N", "O", "F", "Na", "Cl", "Ti", "Au", "U")]
    for symbol in symbols:
        pauling = pymatgen.Element(symbol).X
        assert electronegativity(symbol) == pytest.approx(pauling / 0.336 + 0.615, abs=0.03 / 0.336)
    assert len(_PAULING) == 94


def test_starting_values_exist_for_what_can_carry_a_charge() -> None:
    assert covalent_radius("O") == 0.66
    assert np.isfinite(electronegativity("He"))
    with pytest.raises(ValueError, match="no covalent radius is known for Es"):
        covalent_radius("Es")
