"""Iterative charges are the charges of the factorised matrix, with all their derivatives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch import Tensor

from phicalc.derivatives import deform
from phicalc.electrostatics import CoulombSettings, CoulombSum, equilibrate, plan_coulomb
from phicalc.electrostatics.charges.qeq import choose_solver
from phicalc.electrostatics.charges.solvers import ConjugateGradientSolver, DenseSolver
from phicalc.electrostatics.sums.frozen import frozen
from phicalc.graph import AtomicGraph, collate, from_ase

from .ions import EXACT, PBC, Ions, float64, random_ions

TIGHT = 1e-11


def _salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1))
    atoms.rattle(0.2, seed=4)
    return atoms


def _slab() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.pbc = (True, True, False)
    atoms.rattle(0.2, seed=5)
    return atoms


class System(NamedTuple):
    """What determines the charges: structures, widths, electronegativities, hardnesses, totals."""

    graph: AtomicGraph
    widths: Tensor
    chi: Tensor
    hardness: Tensor
    total: Tensor

    @property
    def coulomb(self) -> CoulombSum:
        return CoulombSum(self.graph, self.widths)

    def iterate(self, **options: object) -> ConjugateGradientSolver:
        return ConjugateGradientSolver(
            self.coulomb, self.hardness, **{"tolerance": TIGHT, **options}
        )

    def factorise(self) -> DenseSolver:
        return DenseSolver(self.coulomb, self.hardness)


def system(
    structures: list[Atoms], totals: list[float], settings: CoulombSettings = EXACT
) -> System:
    """Random electronegativities and hardnesses, the same for the same number of atoms before."""
    graph = collate([from_ase(atoms, 1.0) for atoms in structures])
    widths = 0.4 + 0.03 * graph.atomic_numbers.double()
    generator = torch.Generator().manual_seed(8)
    chi, hardness = (torch.randn(graph.n_atoms, generator=generator).double() for _ in range(2))
    graph = plan_coulomb(graph, widths, settings)
    return System(graph, widths, 3 * chi, 1 + hardness.abs(), float64(totals)[:, None])


def mixed(settings: CoulombSettings = EXACT) -> System:
    return system(
        [molecule("CH3OH"), _salt(), _slab(), Atoms("Na")], [0.0, 1.0, 0.5, 1.0], settings
    )


def test_iterations_find_charges_and_multipliers_of_the_factors() -> None:
    batch = mixed()
    exact_charges, exact_multipliers = batch.factorise()(batch.chi, batch.total)
    charges, multipliers = batch.iterate()(batch.chi, batch.total)
    torch.testing.assert_close(charges, exact_charges, rtol=0, atol=1e-10)
    torch.testing.assert_close(multipliers, exact_multipliers, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        batch.coulomb.total(charges)[:, None], batch.total, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("solver", ["iterate", "factorise"])
def test_solution_solves_the_equations(solver: str) -> None:
    batch = mixed()
    charges, multipliers = getattr(batch, solver)()(batch.chi, batch.total)
    pull = batch.hardness * charges + batch.coulomb.potential(charges)
    residual = pull + multipliers[batch.graph.batch, 0] + batch.chi
    assert float(residual.abs().max()) < 1e-9


def derivatives(batch: System, solver: str) -> list[Tensor]:
    """First and second derivatives of a mixture of charges in all that determines them."""
    graph = batch.graph
    inputs = (graph.positions, torch.zeros_like(graph.cell), batch.chi, batch.hardness, batch.total)
    inputs = [x.clone().requires_grad_() for x in inputs]
    positions, strain, chi, hardness, total = inputs
    moved = deform(graph._replace(positions=positions), strain)
    now = System(moved, batch.widths, chi, hardness, total)
    charges = equilibrate(now.coulomb, chi, hardness, total, solver=getattr(now, solver)())
    weights = torch.linspace(-1, 2, graph.n_atoms, dtype=torch.float64)
    first = torch.autograd.grad((weights * charges).sum(), inputs, create_graph=True)
    mixture = sum((gradient * torch.cos(gradient)).sum() for gradient in first)
    return [*first, *torch.autograd.grad(mixture, inputs)]


def test_derivatives_of_iterated_charges_are_those_of_the_factors() -> None:
    batch = mixed()
    each = derivatives(batch, "iterate"), derivatives(batch, "factorise")
    for number, (iterated, exact) in enumerate(zip(*each, strict=True)):
        scale = max(1.0, exact.abs().max().item())
        torch.testing.assert_close(
            iterated, exact, rtol=0, atol=1e-9 * scale, msg=lambda m, n=number: f"{n}: {m}"
        )


def test_derivatives_of_iterated_solutions_pass_gradgradcheck() -> None:
    batch = system([molecule("H2O"), Atoms("Na")], [0.5, 1.0])
    solver = batch.iterate()
    inputs = tuple(x.clone().requires_grad_() for x in (batch.chi, batch.total))
    assert torch.autograd.gradcheck(solver, inputs)
    # The solution is linear: it is its gradient in the weights of a loss that is curved.
    assert torch.autograd.gradgradcheck(lambda g, q: solver(g**2, q**2), inputs)


@pytest.mark.parametrize("method", ["ewald", "mesh"])
def test_iterations_of_a_structure_do_not_depend_on_its_company(method: str) -> None:
    structures, totals = [molecule("CH3OH"), _salt(), _slab(), Atoms("Na")], [0.0, 1.0, 0.5, 1.0]
    settings = CoulombSettings(1e-4, method)
    batch = mixed(settings)
    together, multipliers = batch.iterate(tolerance=1e-5)(batch.chi, batch.total)
    for number, (atoms, total) in enumerate(zip(structures, totals, strict=True)):
        members = batch.graph.batch == number
        single = system([atoms], [total], settings)
        solver = ConjugateGradientSolver(single.coulomb, batch.hardness[members], tolerance=1e-5)
        alone, multiplier = solver(batch.chi[members], float64([[total]]))
        torch.testing.assert_close(alone, together[members], rtol=0, atol=1e-10)
        torch.testing.assert_close(multiplier[0], multipliers[number], rtol=0, atol=1e-9)


def test_warm_start_saves_iterations_and_gives_the_same_charges() -> None:
    salt = system([_salt().repeat(2), _salt()], [1.0, 0.0], CoulombSettings(1e-6, "ewald"))
    before, _ = salt.iterate()(salt.chi, salt.total)
    moves = 0.002 * torch.randn(salt.graph.positions.shape).double()
    moved = salt._replace(graph=salt.graph._replace(positions=salt.graph.positions + moves))
    solvers = [moved.iterate(tolerance=1e-6, guess=guess) for guess in (None, before)]
    charges = [solver(salt.chi, salt.total)[0] for solver in solvers]
    torch.testing.assert_close(*charges, rtol=0, atol=1e-6)
    assert solvers[1].iterations[0] < 0.7 * solvers[0].iterations[0]


@pytest.mark.parametrize("kind", ["wire", "slab", "crystal"])
def test_charge_does_not_leak_while_iterations_go_on(kind: str) -> None:
    # Charged steps have negative curvature: rounding that lets a net charge in must not grow.
    atoms = _salt().repeat((1, 2, 4))
    atoms.pbc = PBC[kind]
    charged = system([atoms], [0.5], CoulombSettings(1e-4, "ewald"))
    exact, _ = charged.factorise()(charged.chi, charged.total)
    for tolerance in (1e-7, 1e-9, TIGHT):
        solver = charged.iterate(tolerance=tolerance)
        charges, _ = solver(charged.chi, charged.total)
        torch.testing.assert_close(charges.sum(), charged.total[0, 0], rtol=0, atol=1e-12)
        torch.testing.assert_close(charges, exact, rtol=0, atol=tolerance)
        assert solver.iterations[0] < 50


def test_start_from_the_solution_needs_no_iteration() -> None:
    batch = mixed()
    exact, multipliers = batch.factorise()(batch.chi, batch.total)
    solver = batch.iterate(tolerance=1e-9, guess=exact)
    charges, again = solver(batch.chi, batch.total)
    assert solver.iterations == [0]
    torch.testing.assert_close(charges, exact, rtol=0, atol=1e-12)
    torch.testing.assert_close(again, multipliers, rtol=0, atol=1e-9)


def test_wrong_start_is_forgotten() -> None:
    # Charges of another total charge, or of another structure altogether.
    batch = mixed()
    exact, _ = batch.factorise()(batch.chi, batch.total)
    guess = 5 * torch.randn(batch.graph.n_atoms).double()
    charges, _ = batch.iterate(guess=guess)(batch.chi, batch.total)
    torch.testing.assert_close(charges, exact, rtol=0, atol=1e-10)


def test_number_of_iterations_does_not_grow_with_the_structure() -> None:
    iterations = []
    for repeat in (1, 2, 3):
        salt = system([_salt().repeat(repeat)], [0.0], CoulombSettings(1e-6, "ewald"))
        solver = salt.iterate(tolerance=1e-6)
        solver(salt.chi, salt.total)
        iterations += solver.iterations
    assert iterations[2] < 2 * iterations[1] < 40


@pytest.mark.parametrize("total", [0.0, 0.5])
@pytest.mark.parametrize("kind", PBC)
def test_charges_of_a_mesh_are_those_of_an_ewald_sum(kind: str, total: float) -> None:
    accuracy = 1e-4
    atoms = _salt().repeat((1, 2, 1))
    atoms.pbc = PBC[kind]
    exact, rough = (system([atoms], [total], s) for s in (EXACT, CoulombSettings(accuracy, "mesh")))
    assert isinstance(choose_solver(exact.coulomb, exact.hardness), DenseSolver)
    assert isinstance(choose_solver(rough.coulomb, rough.hardness), ConjugateGradientSolver)
    results = []
    for each in (exact, rough):
        graph = each.graph._replace(positions=each.graph.positions.clone().requires_grad_())
        coulomb = CoulombSum(graph, each.widths)
        q = equilibrate(coulomb, each.chi, each.hardness, each.total)
        energy = (each.chi * q + 0.5 * each.hardness * q**2).sum() + coulomb.energy(q).sum()
        (gradient,) = torch.autograd.grad(energy, graph.positions)
        results.append((q.detach(), gradient))
    # Potentials err by about as much in V as forces in eV/Å, and hardnesses exceed 1 eV/e².
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0, atol=accuracy)
    # The charges of this structure are larger than the 1 e rms for which the sum was planned.
    strength = max(1.0, float(results[0][0].square().mean()))
    error = (results[1][1] - results[0][1]).square().sum(1).mean().sqrt()
    assert float(error) < strength * accuracy


def test_giving_up_says_why() -> None:
    batch = mixed()
    with pytest.raises(np.linalg.LinAlgError, match="did not reach 1e-11 eV/e in 3 iterations"):
        batch.iterate(max_iterations=3)(batch.chi, batch.total)


@pytest.mark.parametrize("spoiled", ["chi", "hardness", "total"])
def test_numbers_that_are_not_numbers_do_not_pass_for_charges(spoiled: str) -> None:
    single = system([molecule("H2O")], [0.0])
    single.iterate(max_iterations=50)(single.chi, single.total)  # enough for sound numbers
    values = getattr(single, spoiled).clone()
    values[0] = float("nan")
    single = single._replace(**{spoiled: values})
    try:
        charges, _ = single.iterate(max_iterations=50)(single.chi, single.total)
    except np.linalg.LinAlgError:
        return
    assert charges.isnan().any()


@pytest.mark.parametrize("method", ["direct", "ewald", "mesh"])
@pytest.mark.parametrize("kind", PBC)
def test_frozen_interaction_is_the_interaction(kind: str, method: str) -> None:
    if method == "direct" and any(PBC[kind]):
        method = "auto"
    ions = random_ions(1, PBC[kind], n_ions=7, net_charge=0.3)
    coulomb = ions.sum(CoulombSettings(1e-4, method))
    torch.testing.assert_close(
        frozen(coulomb)(ions.charges), coulomb.potential(ions.charges), rtol=0, atol=1e-12
    )


def test_frozen_interaction_is_the_interaction_in_a_mixed_batch() -> None:
    single = [random_ions(seed, pbc, n_ions=3 + seed) for seed, pbc in enumerate(PBC.values())]
    settings = [CoulombSettings(1e-4, method) for method in ("direct", "mesh", "ewald", "mesh")]
    graph = collate([ions.graph(s) for ions, s in zip(single, settings, strict=True)])
    coulomb = CoulombSum(graph, torch.cat([ions.widths for ions in single]))
    charges = torch.randn(graph.n_atoms, dtype=torch.float64)
    torch.testing.assert_close(
        frozen(coulomb)(charges), coulomb.potential(charges), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("method", ["ewald", "mesh"])
def test_a_far_ion_moves_the_charges_here(method: str) -> None:
    def charges(atoms: Atoms) -> Tensor:
        each = system([atoms], [0.0], CoulombSettings(1e-4, method))
        widths = each.graph.atomic_numbers
        chi, hardness = (0.5 * widths).double(), torch.full_like(each.chi, 5.0)
        hardness[widths == 11] = 1e8  # an ion whose charge does not flow
        chi[widths == 11] = -1e8
        total = float64([[float((widths == 11).sum())]])
        return each._replace(hardness=hardness).iterate(tolerance=1e-7)(chi, total)[0]

    water = molecule("H2O")
    alone = charges(water)
    moves = []
    for distance in (12.0, 24.0):
        near_ion = water + Atoms("Na", positions=[[0, 0, distance]])
        moves.append(float((charges(near_ion)[:3] - alone).abs().max()))
    # The field of a charge across the molecule: it falls as the square of the distance.
    assert moves[0] > 1e-3
    assert moves[0] / moves[1] == pytest.approx(4.0, rel=0.15)


def test_ions_of_one_kind_need_no_pairs() -> None:
    # Gaussians of one width are wholly in Fourier space: an empty pair list must be no obstacle.
    ions = random_ions(2, n_ions=6, widths=(1.5, 1.5), net_charge=0.5)
    graph = ions.graph(CoulombSettings(1e-4, "mesh"))
    assert graph.coulomb.pair_index.shape[1] == 0
    coulomb = CoulombSum(graph, ions.widths)
    expected = Ions(ions.atoms, ions.charges, ions.widths).sum().potential(ions.charges)
    torch.testing.assert_close(frozen(coulomb)(ions.charges), expected, rtol=0, atol=1e-3)
    assert np.isfinite(float(coulomb.energy(ions.charges)))
