"""Coulomb sums against published constants, analytic limits and their own splitting parameter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.electrostatics import CoulombSettings, CoulombSum, plan_coulomb
from phicalc.graph import AtomicGraph, collate, from_ase
from phicalc.units import COULOMB_CONSTANT

# Madelung constants referred to the nearest-neighbour distance (Borwein et al., Lattice Sums Then
# and Now, Cambridge 2013), and that of the simple cubic Wigner lattice referred to the lattice
# constant (Nijboer & Ruijgrok, J. Stat. Phys. 53, 361 (1988)).
MADELUNG = {
    "NaCl": ("rocksalt", 5.64, 0.5, 1.747564594633),
    "CsCl": ("cesiumchloride", 4.12, np.sqrt(3) / 2, 1.762674773070),
    "ZnS": ("zincblende", 5.41, np.sqrt(3) / 4, 1.638055053388),
}
WIGNER_SIMPLE_CUBIC = 2.837297479480


def sums(
    atoms: Atoms,
    charges: list[float],
    widths: float | list[float],
    *,
    splitting: float | None = None,
) -> tuple[CoulombSum, torch.Tensor]:
    """Sum and charges of one structure, exact to rounding."""
    graph = from_ase(atoms, 1.0)
    smearing = torch.as_tensor(widths, dtype=torch.float64).expand(len(atoms)).clone()
    graph = plan_coulomb(graph, smearing, CoulombSettings(1e-12, splitting=splitting))
    return CoulombSum(graph, smearing), torch.tensor(charges, dtype=torch.float64)


def energy(atoms: Atoms, charges: list[float], widths: float | list[float], **options) -> float:
    coulomb, q = sums(atoms, charges, widths, **options)
    return float(0.5 * q @ coulomb.potential(q))


def self_energy(charge: float, width: float) -> float:
    """Energy of one isolated Gaussian charge."""
    return 0.5 * charge**2 * COULOMB_CONSTANT / (np.sqrt(np.pi) * width)


def rattled_salt(repeat: tuple[int, int, int] = (2, 1, 1)) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat(repeat)
    strain = np.random.default_rng(3).normal(0, 0.05, (3, 3))
    atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
    atoms.rattle(0.2, seed=4)
    return atoms


@pytest.mark.parametrize("name", MADELUNG)
def test_madelung_constants(name: str) -> None:
    structure, a, distance, constant = MADELUNG[name]
    atoms, width = bulk(name, structure, a=a), 0.01
    lattice = energy(atoms, [1.0, -1.0], width) - 2 * self_energy(1.0, width)
    assert -lattice * distance * a / COULOMB_CONSTANT == pytest.approx(constant, abs=1e-8)


def test_wigner_crystal_has_its_background() -> None:
    # The background also acts on the spread of a Gaussian, by an energy ∝ σ²/V: negligible here.
    atoms, width = Atoms("H", cell=[4.0, 4.0, 4.0], pbc=True), 1e-4
    lattice = energy(atoms, [1.0], width) - self_energy(1.0, width)
    expected = -0.5 * WIGNER_SIMPLE_CUBIC * COULOMB_CONSTANT / 4.0
    assert lattice == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    "charges", [[1, -1, 0.5, -0.5], [1, 0.3, 0.2, -0.1]], ids=["neutral", "charged"]
)
@pytest.mark.parametrize("widths", [0.3, [0.4, 1.2, 0.8, 0.5]], ids=["one-width", "four-widths"])
def test_energy_does_not_depend_on_the_splitting(charges: list[float], widths: object) -> None:
    atoms = rattled_salt()
    energies = [energy(atoms, charges, widths, splitting=alpha) for alpha in (0.25, 0.4, 0.6)]
    assert np.ptp(energies) < 1e-8


def test_forces_and_stress_do_not_depend_on_the_splitting() -> None:
    atoms, widths = rattled_salt(), torch.tensor([0.4, 1.2, 0.8, 0.5], dtype=torch.float64)
    q = torch.tensor([1.0, 0.3, 0.2, -0.1], dtype=torch.float64)
    gradients = []
    for alpha in (0.25, 0.5):
        graph = plan_coulomb(from_ase(atoms, 1.0), widths, CoulombSettings(1e-12, splitting=alpha))
        inputs = graph.positions.requires_grad_(), graph.cell.requires_grad_()
        total = 0.5 * q @ CoulombSum(graph, widths).potential(q)
        gradients.append(torch.autograd.grad(total, inputs))
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-8)


def test_open_energy_is_the_sum_over_pairs() -> None:
    atoms, widths = molecule("CH3OH"), np.array([0.76, 0.66, 0.31, 0.31, 0.31, 0.31])
    q = np.random.default_rng(1).normal(size=6)
    expected = sum(self_energy(q[i], widths[i]) for i in range(6))
    for i in range(6):
        for j in range(i):
            r = atoms.get_distance(i, j)
            gamma = np.sqrt(widths[i] ** 2 + widths[j] ** 2)
            shielded = float(torch.erf(torch.tensor(r / (np.sqrt(2) * gamma), dtype=torch.float64)))
            expected += COULOMB_CONSTANT * q[i] * q[j] * shielded / r
    assert energy(atoms, list(q), list(widths)) == pytest.approx(expected, rel=1e-12)


def test_distant_charges_follow_coulombs_law() -> None:
    for distance in (20.0, 200.0, 2000.0):
        pair = Atoms("NaCl", positions=[[0, 0, 0], [distance, 0, 0]])
        interaction = energy(pair, [1.0, -0.7], [1.6, 1.0]) - sum(
            self_energy(q, w) for q, w in ((1.0, 1.6), (-0.7, 1.0))
        )
        assert interaction == pytest.approx(-0.7 * COULOMB_CONSTANT / distance, rel=1e-9)


def test_a_large_cell_approaches_the_open_molecule() -> None:
    water = molecule("H2O")
    charges, widths = [-0.8, 0.4, 0.4], [0.66, 0.31, 0.31]
    open_energy = energy(water, charges, widths)
    errors = []
    for length in (20.0, 40.0):
        cell = water.copy()
        cell.set_cell([length] * 3)
        cell.pbc = True
        errors.append(abs(energy(cell, charges, widths) - open_energy))
    # Dipoles in a cubic lattice with tin-foil boundary: the error falls as 1/volume.
    assert errors[1] == pytest.approx(errors[0] / 8, rel=0.02)
    assert errors[1] < 2e-3


def test_matrix_and_potential_agree_in_a_mixed_batch() -> None:
    structures = [rattled_salt(), molecule("CH3OH"), Atoms("H"), rattled_salt((1, 1, 1))]
    graph = collate([from_ase(atoms, 1.0) for atoms in structures])
    smearing = 0.3 + 0.05 * graph.atomic_numbers.double()
    graph = plan_coulomb(graph, smearing, CoulombSettings(1e-6))
    coulomb = CoulombSum(graph, smearing)
    q = torch.randn(graph.n_atoms, dtype=torch.float64)
    matrix = coulomb.matrix()
    assert torch.equal(matrix, matrix.transpose(1, 2)) or torch.allclose(
        matrix, matrix.transpose(1, 2), rtol=0, atol=1e-12
    )
    product = coulomb.from_slots((matrix @ coulomb.to_slots(q)[:, :, None]).squeeze(2))
    torch.testing.assert_close(product, coulomb.potential(q), rtol=1e-11, atol=1e-11)


def test_interaction_matrix_is_positive_definite() -> None:
    coulomb, _ = sums(rattled_salt((2, 2, 1)), [0.0] * 8, 0.7)
    constrained = coulomb.matrix()[0] - coulomb.matrix()[0].mean()
    assert torch.linalg.eigvalsh(constrained + 1.0).min() > 0


def test_periodic_potential_energy_is_extensive() -> None:
    atoms, charges, widths = rattled_salt(), [1, -1, 0.5, -0.4], [0.4, 1.2, 0.8, 0.5]
    one = energy(atoms, charges, widths)
    two = energy(atoms.repeat((1, 2, 1)), charges * 2, widths * 2)
    assert two == pytest.approx(2 * one, abs=1e-9)


def test_absurd_settings_are_refused() -> None:
    graph = from_ase(Atoms("H"), 1.0)
    for accuracy in (1e-15, 10.0, float("nan")):
        with pytest.raises(ValueError, match="'force_accuracy' must be (in|a finite)"):
            CoulombSettings(accuracy)
    for width in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="smearing must be positive"):
            plan_coulomb(graph, torch.full((1,), width, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"call potential.prepare"):
        CoulombSum(graph, torch.ones(1, dtype=torch.float64))


def test_plan_counts_each_pair_and_each_k_vector_once() -> None:
    graph = plan_coulomb(
        from_ase(rattled_salt(), 1.0),
        torch.full((4,), 0.5).double(),
        CoulombSettings(splitting=0.4),
    )
    plan = graph.coulomb
    assert plan is not None
    k = plan.kvectors[0]
    assert len(torch.unique(torch.cat([k, -k]), dim=0)) == 2 * len(k)
    pairs = torch.cat([plan.pair_index.T, plan.pair_shifts], dim=1)
    reverse = torch.cat([plan.pair_index.flip(0).T, -plan.pair_shifts], dim=1)
    assert len(torch.unique(torch.cat([pairs, reverse]), dim=0)) == 2 * len(pairs)


def test_sums_pass_gradgradcheck() -> None:
    widths = torch.tensor([0.4, 1.2, 0.8, 0.5], dtype=torch.float64)
    graph = plan_coulomb(from_ase(rattled_salt(), 1.0), widths, CoulombSettings(1e-8))
    q = torch.tensor([1.0, 0.3, 0.2, -0.1], dtype=torch.float64)

    def total(
        positions: torch.Tensor, cell: torch.Tensor, charges: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        moved: AtomicGraph = graph._replace(positions=positions, cell=cell)
        return 0.5 * charges @ CoulombSum(moved, sigma).potential(charges)

    inputs = tuple(x.clone().requires_grad_() for x in (graph.positions, graph.cell, q, widths))
    assert torch.autograd.gradcheck(total, inputs, atol=1e-6)
    assert torch.autograd.gradgradcheck(total, inputs, atol=1e-5)
