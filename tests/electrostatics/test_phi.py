"""The Φ-Module: acceptance tests beyond the contract, which its modes fulfil as heads."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from jaxtyping import TypeCheckError

from phicalc import PhiCalculator, testing
from phicalc.electrostatics import PhiModule
from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.laplacian import _hash, graph_laplacian, random_laplacian
from phicalc.electrostatics.phi import eigenpairs, poisson
from phicalc.graph import AtomicGraph, Fragments, collate, from_ase
from phicalc.nn import envelope
from phicalc.potential import Potential

from ..physics.conftest import STRUCTURES, evaluator, tiny_potential

CUTOFF = 4.0
MODES = ("spectral", "dirichlet", "solve", "random")
REAL_MODES = MODES[:3]


def features_of(graph: AtomicGraph, width: int = 6) -> torch.Tensor:
    """Smooth invariant features, as any network would make."""
    first, second = graph.edge_index
    vectors = graph.positions[second] - graph.positions[first]
    shifts = torch.einsum("ns,nsx->nx", graph.edge_shifts.double(), graph.cell[graph.batch[first]])
    lengths = (vectors + shifts).norm(dim=1)
    powers = torch.arange(1, width + 1, dtype=torch.float64)
    pairs = envelope(lengths / CUTOFF)[:, None] * torch.exp(-0.3 * powers * lengths[:, None])
    numbers = 0.1 * graph.atomic_numbers.double()
    result = torch.sin(numbers[:, None] * powers)
    return result.index_add(0, first, pairs * (1 + numbers[second, None]))


def module(mode: str, **settings: object) -> PhiModule:
    torch.manual_seed(5)
    return PhiModule(6, CUTOFF, mode=mode, **{"eigenpairs": 5, **settings}).double()


def graph_of(atoms: Atoms) -> AtomicGraph:
    return from_ase(atoms, CUTOFF)


def some_structures() -> list[Atoms]:
    return [STRUCTURES["molecule"](), STRUCTURES["crystal"](), molecule("H2O"), Atoms("H")]


@pytest.fixture(params=["dense", "iterative"])
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of solving, whatever the size."""
    if request.param == "iterative":
        monkeypatch.setattr(poisson, "DENSE_POISSON", 0)
        monkeypatch.setattr(poisson, "DENSE_TRAINING", 0)
        monkeypatch.setattr(eigenpairs, "DENSE_EIGENPAIRS", 0)
        start = poisson.IterativePoisson.__init__
        tight = lambda self, *args: start(self, *args, tolerance=1e-13)  # noqa: E731
        monkeypatch.setattr(poisson.IterativePoisson, "__init__", tight)
    return request.param


# --- the operator --------------------------------------------------------------------------------


def test_laplacian_is_symmetric_positive_and_blind_to_constants():
    graph = graph_of(STRUCTURES["crystal"]())
    laplacian = graph_laplacian(graph, CUTOFF)
    matrix = laplacian.matrix()[0]
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    values = torch.linalg.eigvalsh(matrix)
    assert abs(float(values[0])) < 1e-12
    assert float(values[1]) > 1e-3
    values = torch.randn(graph.n_atoms, 3, dtype=torch.float64)
    torch.testing.assert_close(laplacian(values), matrix @ values)
    np.testing.assert_allclose(laplacian.sparse().toarray(), matrix, atol=1e-12)
    torch.testing.assert_close(laplacian.degree(), matrix.diagonal())
    energies = 0.5 * torch.einsum("ic,ij,jc->c", values, matrix, values)
    torch.testing.assert_close(laplacian.atomic_energies(values).sum(0), energies)


def test_random_numbers_are_the_same_on_every_device():
    """Sines of large numbers in single precision are not."""
    number, draw = torch.arange(400)[:, None], torch.arange(8) + 0.5
    expected = np.sin(12.9898 * (number.numpy() + 1) + 78.233 * draw.numpy().astype(float))
    expected = np.abs(np.fmod(43758.5453 * expected, 1))
    np.testing.assert_allclose(_hash(number, draw), expected, rtol=0, atol=1e-9)


def test_random_laplacian_has_the_size_of_the_real_one_and_nothing_else_of_it():
    graph = graph_of(bulk("NaCl", "rocksalt", a=5.64).repeat(3))
    neighbors = graph.n_edges // graph.n_atoms
    real, control = graph_laplacian(graph, CUTOFF), random_laplacian(graph, CUTOFF, neighbors)
    mean = [float(each.degree().mean()) for each in (real, control)]
    assert 0.2 < mean[1] / mean[0] < 5
    stretched = graph._replace(positions=1.1 * graph.positions, cell=1.1 * graph.cell)
    same = random_laplacian(stretched, CUTOFF, neighbors)
    assert torch.equal(same.matrix(), control.matrix())
    values = torch.linalg.eigvalsh(control.matrix()[0])
    assert float(values[0]) > -1e-10
    assert len({tuple(pair) for pair in control.index.T.tolist()}) > graph.n_atoms


# --- identities ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["molecule", "cation", "crystal", "charged-crystal"])
def test_screened_charges_and_potential_solve_poissons_equation(kind: str, solver: str):
    graph, phi = graph_of(STRUCTURES[kind]()), module("solve", channels=1)
    found = phi(features_of(graph), graph)
    laplacian, screening = graph_laplacian(graph, CUTOFF), phi.field.screening()
    left = laplacian(found.potential[:, None]) + screening * found.potential[:, None]
    torch.testing.assert_close(left[:, 0], found.charges, rtol=0, atol=1e-9)
    assert float(found.charges.detach().sum()) == pytest.approx(
        float(graph.total_charge), abs=1e-10
    )
    energy = 0.5 * (found.charges * found.potential).sum()
    torch.testing.assert_close(found.energy.sum(), energy)
    torch.testing.assert_close(found.atomic_energies, 0.5 * found.charges * found.potential)


@pytest.mark.parametrize("mode", ["spectral", "dirichlet"])
def test_charges_are_the_laplacian_of_the_potential(mode: str, solver: str):
    graph, phi = graph_of(STRUCTURES["crystal"]()), module(mode, channels=1)
    found = phi(features_of(graph), graph)
    laplacian = graph_laplacian(graph, CUTOFF)
    torch.testing.assert_close(laplacian(found.potential[:, None])[:, 0], found.charges)
    assert abs(float(found.charges.detach().sum())) < 1e-10
    assert abs(float(found.potential.detach().mean())) < 1e-10
    energy = 0.5 * (found.potential * found.charges).sum()
    torch.testing.assert_close(found.energy.sum(), energy)


def test_spectral_energy_is_that_of_its_amplitudes(solver: str):
    graph, phi = graph_of(STRUCTURES["molecule"]()), module("spectral")
    features = features_of(graph)
    values = torch.linalg.eigvalsh(graph_laplacian(graph, CUTOFF).matrix()[0])[:5]
    amplitudes = phi.field.amplitudes(phi.field.encode(features).mean(0))
    expected = 0.5 * (values * amplitudes**2).sum()
    torch.testing.assert_close(phi(features, graph).energy.sum(), expected)


def test_potential_is_the_derivative_of_the_energy_by_the_charges():
    graph = graph_of(STRUCTURES["molecule"]())
    laplacian, screening = graph_laplacian(graph, CUTOFF), torch.tensor([0.7]).double()
    charges = torch.randn(graph.n_atoms, 1, dtype=torch.float64, requires_grad=True)
    potential = poisson.screened_potential(laplacian, screening, charges, 1)
    (slope,) = torch.autograd.grad(0.5 * (charges * potential).sum(), charges)
    torch.testing.assert_close(slope, potential)


# --- invariances beyond the contract -------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_batches_give_what_each_structure_gives_alone(mode: str, solver: str):
    graphs, phi = [graph_of(atoms) for atoms in some_structures()], module(mode)
    alone = [phi(features_of(graph), graph) for graph in graphs]
    batch = collate(graphs)
    together = phi(features_of(batch), batch)
    for name in ("energy", "atomic_energies", "potential", "charges"):
        expected = torch.cat([getattr(each, name) for each in alone])
        torch.testing.assert_close(getattr(together, name), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", REAL_MODES)
def test_two_far_copies_have_twice_the_energy(mode: str, solver: str):
    atoms, phi = STRUCTURES["molecule"](), module(mode)
    far = atoms.copy()
    far.translate([40, 0, 0])
    energies = [
        float(phi(features_of(graph), graph).energy.detach().sum())
        for graph in (graph_of(atoms), graph_of(atoms + far))
    ]
    doubled = energies[1] == pytest.approx(2 * energies[0], rel=1e-10)
    assert doubled == (mode != "spectral")  # which is not size consistent


@pytest.mark.parametrize("head", ["dirichlet", "solve", "solve+coulomb"])
@pytest.mark.parametrize(
    "atoms",
    [
        molecule("C6H6"),
        bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        bulk("NaCl", "cesiumchloride", a=3.5),
    ],
    ids=["benzene", "rocksalt", "cesium chloride"],
)
def test_forces_and_stress_of_symmetric_structures(head: str, atoms: Atoms, solver: str):
    """Degenerate eigenvalues do no harm where no eigenvectors are used."""
    evaluate = evaluator(tiny_potential(head=head))
    if not atoms.pbc.all():
        testing.check_forces(evaluate, atoms, tolerance=2e-6)
        return
    testing.check_stress(evaluate, atoms, tolerance=2e-6)
    np.testing.assert_allclose(evaluate(atoms).forces, 0, atol=1e-9)
    rattled = atoms * (1, 1, 2)
    rattled.rattle(1e-2, seed=1)  # next to the degeneracy
    testing.check_forces(evaluate, rattled, tolerance=2e-6)


def test_random_control_has_right_forces_and_the_size_of_the_real_thing():
    control, real = tiny_potential(head="random"), tiny_potential(head="solve")
    testing.check_forces(evaluator(control), STRUCTURES["molecule"]())
    assert [p.shape for p in control.parameters()] == [p.shape for p in real.parameters()]


# --- distances -----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["spectral", "dirichlet", "solve", "solve+coulomb"])
def test_energy_of_a_pair_is_smooth_across_the_cutoff(head: str):
    evaluate = evaluator(tiny_potential(head=head))
    distances = np.linspace(CUTOFF - 0.02, CUTOFF + 0.02, 41)
    pairs = [evaluate(Atoms("NaCl", [[0, 0, 0], [r, 0, 0]])) for r in distances]
    slopes = np.gradient([pair.energy for pair in pairs], distances)
    pulls = np.array([-pair.forces[1, 0] for pair in pairs])
    np.testing.assert_allclose(slopes[1:-1], pulls[1:-1], atol=1e-5)
    assert np.abs(np.diff(pulls)).max() < 1e-2  # per 0.001 Å


def test_a_hard_cutoff_would_jump():
    """Shows that the test above can fail: the same scan with weights that end abruptly."""
    jumps = []
    for smooth in (True, False):
        values = []
        for r in (CUTOFF - 1e-7, CUTOFF + 1e-7):
            weight = float(envelope(torch.tensor(r / CUTOFF))) if smooth else float(r < CUTOFF)
            matrix = weight / r * np.array([[1, -1], [-1, 1]]) + 0.8 * np.eye(2)
            values.append(0.5 * np.array([1, -1]) @ np.linalg.solve(matrix, [1, -1]))
        jumps.append(abs(values[1] - values[0]))
    assert jumps[0] < 1e-12
    assert jumps[1] > 0.1


@pytest.mark.parametrize("head", ["spectral", "dirichlet", "solve", "solve+coulomb"])
def test_dissociation_ends_at_a_finite_energy(head: str):
    evaluate = evaluator(tiny_potential(head=head))
    far, farther = (
        evaluate(Atoms("NaCl", [[0, 0, 0], [r, 0, 0]])).energy for r in (1000.0, 2000.0)
    )
    assert np.isfinite(far)
    assert farther == pytest.approx(far, abs=2e-2)  # Coulomb: q²k/r


# --- edge cases ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("H"),
        Atoms("H", info={"charge": 1}),
        Atoms("NaCl", [[0, 0, 0], [30, 0, 0]]),
        Atoms("NaClH", [[0, 0, 0], [2.4, 0, 0], [30, 0, 0]], info={"charge": -1}),
        Atoms("Na", cell=[3, 3, 3], pbc=True),
        Atoms(),
    ],
    ids=["atom", "ion", "isolated", "charged", "own images", "nothing"],
)
def test_few_atoms_and_more_eigenpairs_than_atoms(mode: str, atoms: Atoms, solver: str):
    graph = graph_of(atoms)
    found = module(mode, eigenpairs=7)(features_of(graph), graph)
    assert all(bool(value.isfinite().all()) for value in found)
    if mode in ("solve", "random") and len(atoms):
        total = atoms.info.get("charge", 0)
        assert float(found.charges.detach().sum()) == pytest.approx(total, abs=1e-12)
    elif len(atoms) == 1:
        assert float(found.energy.detach()) == pytest.approx(0, abs=1e-12)  # nothing to differ from


def test_fragments_have_their_own_charges(solver: str):
    graph = graph_of(STRUCTURES["molecule"]())
    number = (torch.arange(graph.n_atoms) > 3).long()
    charge = torch.tensor([[0.3, -0.3]]).double()
    zeros = torch.zeros(graph.n_atoms, dtype=torch.float64)
    fragments = Fragments(number, torch.ones(1, 2, dtype=torch.bool), charge, zeros)
    graph = graph._replace(fragments=fragments)
    found = module("solve")(features_of(graph), graph)
    torch.testing.assert_close(ChargeConstraints(graph).total(found.charges), charge)


def test_unknown_modes_are_refused():
    with pytest.raises((ValueError, TypeCheckError), match="mode"):
        module("fourier")


# --- eigenvectors and solvers --------------------------------------------------------------------


def test_iterations_find_the_eigenvectors_that_diagonalisation_finds(monkeypatch):
    graph = collate([graph_of(STRUCTURES["molecule"]()), graph_of(STRUCTURES["crystal"]())])
    laplacian = graph_laplacian(graph, CUTOFF)
    dense = eigenpairs.lowest_eigenvectors(laplacian, 6)
    monkeypatch.setattr(eigenpairs, "DENSE_EIGENPAIRS", 8)  # the molecule has nine
    found = eigenpairs.lowest_eigenvectors(laplacian, 6)
    torch.testing.assert_close(found, dense, atol=1e-7, rtol=0)


def test_number_of_iterations_does_not_grow_with_the_structure():
    phi, counts = module("solve"), []
    for n in (4, 10):
        atoms = bulk("NaCl", "rocksalt", a=5.64).repeat(n)
        atoms.rattle(0.2, seed=3)
        graph = graph_of(atoms)
        laplacian = graph_laplacian(graph, CUTOFF)
        found = poisson.IterativePoisson(laplacian, phi.field.screening())
        torch.manual_seed(1)
        found(torch.randn(graph.n_atoms, 4, dtype=torch.float64))
        counts += found.iterations
    assert counts[1] <= counts[0] + 1


def test_failure_of_the_solver_is_an_error():
    graph = graph_of(STRUCTURES["molecule"]())
    found = poisson.IterativePoisson(
        graph_laplacian(graph, CUTOFF), torch.tensor([1e-3]).double(), max_iterations=2
    )
    with pytest.raises(np.linalg.LinAlgError, match="did not reach .* in 2 iterations"):
        found(torch.randn(graph.n_atoms, 1, dtype=torch.float64))


# --- what users see ------------------------------------------------------------------------------


def moderate(head: str) -> Potential:
    """Random weights whose energies, charges and forces a calculator does not refuse."""
    potential = tiny_potential(head=head)
    with torch.no_grad():
        potential.embedding.mul_(0.3)
    return potential


@pytest.mark.parametrize("head", ["spectral", "dirichlet", "solve", "solve+coulomb", "random"])
def test_calculator_gives_potential_and_charges(head: str):
    calc = PhiCalculator(moderate(head), device="cpu", dtype="float64")
    atoms = STRUCTURES["molecule"]()
    charges, potential = calc.get_charges(atoms), calc.get_electrostatic_potential(atoms)
    assert charges.shape == potential.shape == (len(atoms),)
    assert np.abs(potential).max() > 1e-3
    assert "dipole" in calc.results
    if head in ("spectral", "dirichlet"):
        assert abs(potential.mean()) < 1e-10


def test_potential_that_is_not_unique_is_told():
    calc = PhiCalculator(moderate("spectral"), device="cpu", dtype="float64")
    with pytest.warns(UserWarning, match="depend on the order of the atoms"):
        calc.get_electrostatic_potential(molecule("C6H6"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_electrostatic_potential(STRUCTURES["molecule"]())


def test_spectral_charges_have_no_born_charges():
    calc = PhiCalculator(moderate("spectral"), device="cpu", dtype="float64")
    with pytest.raises(PropertyNotImplementedError, match="eigenvectors are constants"):
        calc.get_born_effective_charges(STRUCTURES["molecule"]())


def test_charges_of_poissons_equation_have_born_charges():
    potential = moderate("solve")
    calc = PhiCalculator(potential, device="cpu", dtype="float64")
    atoms = STRUCTURES["molecule"]()
    born, moved = calc.get_born_effective_charges(atoms), []
    for step in (-1e-4, 1e-4):
        shifted = atoms.copy()
        shifted.positions[2, 1] += step
        moved.append(calc.get_charges(shifted) @ shifted.positions)
    np.testing.assert_allclose(born[2, :, 1], (moved[1] - moved[0]) / 2e-4, rtol=1e-5)


@pytest.mark.parametrize("head", ["spectral", "dirichlet"])
def test_heads_that_do_not_see_the_total_charge_say_so(head: str):
    calc = PhiCalculator(moderate(head), device="cpu")
    with pytest.warns(UserWarning, match="charges that sum to zero"):
        calc.get_potential_energy(STRUCTURES["cation"]())


# --- training on forces --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_force_losses_by_finite_differences(mode: str, solver: str):
    graph, phi = graph_of(STRUCTURES["cation"]()), module(mode)
    direction = torch.randn(graph.n_atoms, 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        positions = graph.positions.clone().requires_grad_()
        moved = graph._replace(positions=positions)
        energy = phi(features_of(moved), moved).energy.sum()
        (slope,) = torch.autograd.grad(energy, positions, create_graph=True)
        return (slope * direction).sum() + 0.3 * (slope**2).sum() + energy

    loss().backward()
    weights = [weight for weight in phi.parameters() if weight.grad is not None]
    assert len(weights) == len(list(phi.parameters()))
    moves = [torch.randn_like(weight) for weight in weights]
    slope = sum(
        float((weight.grad * move).sum()) for weight, move in zip(weights, moves, strict=True)
    )

    def at(step: float) -> float:
        with torch.no_grad():
            for weight, move in zip(weights, moves, strict=True):
                weight += step * move
        value = float(loss().detach())
        with torch.no_grad():
            for weight, move in zip(weights, moves, strict=True):
                weight -= step * move
        return value

    h = 1e-5
    expected = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert slope == pytest.approx(expected, rel=1e-7)
