"""Charges that flow along links: an independent reference, their limits, and their response."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.stress import voigt_6_to_full_3x3_stress
from scipy.optimize import minimize

from phicalc import PhiCalculator
from phicalc.derivatives import predict
from phicalc.electrostatics import CoulombSettings, CoulombSum, equilibrate, plan_coulomb
from phicalc.electrostatics.charges.formal import LARGEST
from phicalc.electrostatics.charges.transfer import (
    DenseSolver,
    LinkSolver,
    Network,
    transfer_charges,
)
from phicalc.electrostatics.laplacian import Laplacian
from phicalc.graph import AtomicGraph, collate, edge_vectors, from_ase
from phicalc.potential import Potential

from ..physics.conftest import tiny_potential

REFERENCE = Path(__file__).parents[1] / "data" / "acks2_reference.npz"
CUTOFF = 4.0


def names() -> list[str]:
    with np.load(REFERENCE) as data:
        return sorted({key.split("/")[0] for key in data.files})


class Given(CoulombSum):
    """An interaction that is given as a matrix."""

    def __init__(self, graph: AtomicGraph, matrix: np.ndarray):
        self.graph, self.interaction, self.meshes = graph, torch.from_numpy(matrix), []

    def matrix(self) -> torch.Tensor:
        return self.interaction[None]

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        return self.interaction @ charges


@pytest.mark.parametrize("name", names())
def test_charges_and_energies_are_those_of_an_independent_program(name: str) -> None:
    with np.load(REFERENCE) as data:
        entry = {key.split("/")[1]: data[key] for key in data.files if key.startswith(name + "/")}
    graph = from_ase(Atoms("".join(entry["symbols"]).upper(), entry["positions"]), 1.0)
    one_way = torch.from_numpy(entry["links"].T)
    softness = torch.from_numpy(entry["softness"])
    both = torch.cat([one_way, one_way.flip(0)], dim=1)
    network = Network(Laplacian(graph, both, torch.cat([softness, softness])))
    hardness = torch.from_numpy(np.diag(entry["H"]).copy())
    coulomb = Given(graph, entry["H"] - np.diag(np.diag(entry["H"])))
    chi, formal = torch.from_numpy(entry["chi"]), torch.from_numpy(entry["z"])
    charges = transfer_charges(coulomb, chi, hardness, formal, network)
    np.testing.assert_allclose(charges, entry["charges"], rtol=0, atol=1e-9)
    potential = chi + hardness * charges + coulomb.potential(charges)
    energy = charges @ chi + 0.5 * charges @ (potential - chi) + network.energies(potential).sum()
    assert float(energy) == pytest.approx(float(entry["energy"]), abs=1e-9)


class Case(NamedTuple):
    graph: AtomicGraph
    coulomb: CoulombSum
    chi: torch.Tensor
    hardness: torch.Tensor
    formal: torch.Tensor
    network: Network


def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1))
    atoms.rattle(0.2, seed=4)
    return atoms


def acid() -> Atoms:
    atoms = molecule("CH3COOH")
    atoms.rattle(0.1, seed=4)
    return atoms


def case(
    *structures: Atoms, softness: float = 0.3, driven: bool = False, reservoir: bool = False
) -> Case:
    graph = collate([from_ase(each, CUTOFF) for each in structures])
    rng = np.random.default_rng(3)
    n = graph.n_atoms

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, n))

    widths, chi, hardness, formal = draw(0.4, 0.9), draw(-3, 3), draw(2, 6), draw(-0.5, 0.5)
    graph = plan_coulomb(graph, widths, CoulombSettings(1e-10))
    vectors = edge_vectors(graph)
    share = (1 - (vectors.norm(dim=1) / CUTOFF) ** 2) ** 3
    each = draw(0, 1)
    first, second = graph.edge_index
    links = Laplacian(graph, graph.edge_index, softness * share * (each[first] + each[second]))
    drive = vectors @ torch.tensor([0.1, -0.2, 0.3]).double() if driven else None
    return Case(
        graph, CoulombSum(graph, widths), chi, hardness, formal,
        Network(links, drive, draw(0, 0.2) if reservoir else None),
    )  # fmt: skip


@pytest.mark.parametrize("reservoir", [False, True])
@pytest.mark.parametrize("driven", [False, True])
@pytest.mark.parametrize("make", [salt, acid])
def test_flows_are_those_of_least_energy(make, driven: bool, reservoir: bool) -> None:
    """Brute force: the energy as a function of what flows along every link."""
    given = case(make(), driven=driven, reservoir=reservoir)
    graph, links = given.graph, given.network.links
    (first, second), shifts = graph.edge_index.numpy(), graph.edge_shifts.numpy()
    half = [
        e for e in range(len(first)) if (first[e], *shifts[e]) > (second[e], *-shifts[e])
        and first[e] != second[e]
    ]  # fmt: skip
    softness = links.weights.numpy()[half]
    drive = np.zeros(len(half)) if not driven else given.network.drive.numpy()[half]
    gather = np.zeros((graph.n_atoms, len(half)))
    gather[first[half], range(len(half))], gather[second[half], range(len(half))] = 1, -1
    if reservoir:
        gather = np.hstack([gather, np.eye(graph.n_atoms)])
        softness = np.append(softness, given.network.reservoirs.numpy())
        drive = np.append(drive, np.zeros(graph.n_atoms))
    matrix = given.coulomb.matrix()[0].numpy() + np.diag(given.hardness.numpy())
    chi, formal = given.chi.numpy(), given.formal.numpy()

    def energy(flows: np.ndarray) -> tuple[float, np.ndarray]:
        charges = formal + gather @ flows
        potential = chi + matrix @ charges
        value = charges @ chi + 0.5 * charges @ matrix @ charges
        value += 0.5 * np.sum(flows**2 / softness) + drive @ flows
        return value, gather.T @ potential + flows / softness + drive

    scale = np.sqrt(softness)  # the same problem, but well conditioned
    least = minimize(
        lambda x: (energy(scale * x)[0], scale * energy(scale * x)[1]),
        np.zeros(len(softness)), jac=True, method="L-BFGS-B",
        options={"gtol": 1e-11, "ftol": 0, "maxiter": 5000, "maxfun": 20000},
    )  # fmt: skip
    expected = formal + gather @ (scale * least.x)
    found = transfer_charges(*given[1:])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("reservoir", [False, True])
@pytest.mark.parametrize("structures", [(salt,), (acid,), (salt, acid)])
def test_iterations_find_the_charges_of_the_matrix(structures, reservoir: bool) -> None:
    given = case(*(make() for make in structures), driven=True, reservoir=reservoir)
    parts = given.coulomb, given.hardness, given.network
    dense, iterative = DenseSolver(*parts), LinkSolver(*parts, tolerance=1e-12)
    chi, weights = given.chi.requires_grad_(), given.network.links.weights.requires_grad_()
    found = []
    for solver in (dense, iterative):
        q = transfer_charges(*given[1:], solver=solver)
        (slope,) = torch.autograd.grad((q**3).sum(), chi, create_graph=True)
        curvature = torch.autograd.grad((slope**2).sum(), weights)[0]
        found.append((q.detach(), slope.detach(), curvature))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_iterations_start_from_charges_that_are_known() -> None:
    given = case(salt())
    parts = given.coulomb, given.hardness, given.network
    fresh = LinkSolver(*parts)
    charges = transfer_charges(*given[1:], solver=fresh, derivatives=0)
    again = LinkSolver(*parts, guess=charges)
    torch.testing.assert_close(
        transfer_charges(*given[1:], solver=again, derivatives=0), charges, rtol=0, atol=1e-7
    )
    assert again.iterations[0] <= 1 < fresh.iterations[0]


def test_soft_links_are_charge_equilibration() -> None:
    given = case(acid())
    total = given.formal.sum().reshape(1, 1)
    limit = equilibrate(given.coulomb, given.chi, given.hardness, total)
    errors = []
    for softness in (1e2, 1e4, 1e6):
        links = case(acid(), softness=softness).network
        errors.append(float((transfer_charges(*given[1:-1], links) - limit).abs().max()))
    assert errors[0] < 0.05
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.2)  # ∝ 1/s
    assert errors[2] < 1e-6


def calculator(potential: Potential, field: list[float] | None = None) -> PhiCalculator:
    return PhiCalculator(potential, dtype="float64", compile=False, external_field=field)


@pytest.fixture(scope="module")
def potential() -> Potential:
    """With ions, and links that are soft enough to be seen."""
    potential = tiny_potential(head={"name": "acks2", "formal_charges": "element"})
    with torch.no_grad():
        potential.embedding.mul_(0.3)
        potential.head.starting.formal.element[[3, 4], [LARGEST + 1, LARGEST - 1]] = (
            60.0  # Na+, Cl−
        )
    return potential


def test_born_charges_and_dielectric_constant_do_not_depend_on_the_cell(potential) -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    model = calculator(potential)
    found = []
    for repeats in ((1, 1, 1), (2, 2, 2), (3, 2, 1)):
        atoms = crystal.repeat(repeats)
        born = model.get_born_effective_charges(atoms)
        assert abs(born.sum(0)).max() < 1e-12
        found.append(np.append(born[0].ravel(), model.get_dielectric_tensor(atoms).ravel()))
    assert abs(found[0][0]) > 0.5
    assert found[0][-1] > 1.1
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=0, atol=1e-9)


def test_born_charges_of_links_that_no_field_drives_do_not_depend_on_the_cell() -> None:
    potential = tiny_potential(head={"name": "latent+links", "formal_charges": "element"})
    with torch.no_grad():
        potential.head.starting.formal.element[[3, 4], [LARGEST + 1, LARGEST - 1]] = 60.0
    cell, model = salt(), calculator(potential)
    twice = model.get_born_effective_charges(cell.repeat((1, 2, 1)))
    np.testing.assert_allclose(
        twice[: len(cell)], model.get_born_effective_charges(cell), atol=1e-9
    )
    field, step = np.array([0, 1e-4, 0]), 1e-4
    plus, minus = (calculator(potential, list(sign * field)) for sign in (1, -1))
    forces = (plus.get_forces(cell) - minus.get_forces(cell)) / (2 * step)
    np.testing.assert_allclose(model.get_born_effective_charges(cell)[:, 1], forces, atol=1e-8)


@pytest.mark.parametrize("make", [salt, acid])
@pytest.mark.parametrize("axis", [0, 2])
def test_fields_polarize_along_every_axis(potential, make, axis: int) -> None:
    """Born charges, polarizability and stress are derivatives of what is computed in a field."""
    atoms, step = make(), 1e-3
    field = step * np.eye(3)[axis]
    plus, minus = (calculator(potential, list(sign * field)) for sign in (1, -1))
    model = calculator(potential)
    born = (plus.get_forces(atoms) - minus.get_forces(atoms)) / (2 * step)
    np.testing.assert_allclose(model.get_born_effective_charges(atoms)[:, axis], born, atol=1e-8)
    change = plus.get_potential_energy(atoms) + minus.get_potential_energy(atoms)
    curvature = (change - 2 * model.get_potential_energy(atoms)) / step**2
    assert model.get_polarizability(atoms)[axis, axis] == pytest.approx(-curvature, abs=1e-6)
    if make is acid:
        moments = plus.get_dipole_moment(atoms) - minus.get_dipole_moment(atoms)
        np.testing.assert_allclose(
            model.get_polarizability(atoms)[:, axis], moments / (2 * step), atol=1e-8
        )


def test_stress_in_a_field_along_a_periodic_axis(potential) -> None:
    atoms, step = salt(), 3e-5
    model = calculator(potential, [0.05, 0.1, -0.2])
    stress = voigt_6_to_full_3x3_stress(model.get_stress(atoms))
    for i, j in ((0, 0), (0, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += 0.5 * sign * step
            strain[j, i] += 0.5 * sign * step
            strained = atoms.copy()
            strained.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
            energies.append(model.get_potential_energy(strained))
        slope = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        assert stress[i, j] == pytest.approx(slope, abs=1e-8)


def test_polarizability_of_a_chain_is_that_of_its_links() -> None:
    """Per atom it converges with length; that of charge equilibration grows without end."""
    chains = {n: Atoms(f"C{n}", [(1.3 * i, 0, 0) for i in range(n)]) for n in (10, 20, 40)}

    def per_atom(head: dict | str) -> list[float]:
        potential = tiny_potential(head=head)
        with torch.no_grad():
            potential.embedding.mul_(0.1)
        return [
            float(calculator(potential).get_polarizability(chain)[0, 0]) / n
            for n, chain in chains.items()
        ]

    flowing = per_atom({"name": "acks2", "softness_ceiling": 0.2})
    assert flowing[2] / flowing[1] < 1.2
    metallic = per_atom("qeq")
    assert metallic[2] / metallic[1] > 2


@pytest.mark.parametrize("name", ["acks2", "latent+links", "solve+coulomb+links"])
def test_far_fragments_keep_their_formal_charges(name: str) -> None:
    potential = tiny_potential(head={"name": name, "formal_charges": "element"})
    with torch.no_grad():
        potential.embedding.mul_(0.3)
        potential.head.starting.formal.element[[3, 4], [LARGEST + 1, LARGEST - 1]] = 60.0
    far = Atoms("NaCl", [(0, 0, 0), (1000, 0, 0)])
    model = calculator(potential)
    np.testing.assert_allclose(model.get_charges(far), [1, -1], atol=1e-12)
    waters = molecule("H2O") + far
    waters.positions[:3] += [500, 0, 0]
    charges = model.get_charges(waters)
    np.testing.assert_allclose([charges[:3].sum(), *charges[3:]], [0, 1, -1], atol=1e-12)
    assert abs(charges[:3]).max() > 1e-3


def test_what_is_missing_goes_to_atoms_that_are_not_certain() -> None:
    potential = tiny_potential(head={"name": "acks2", "formal_charges": "element"})
    with torch.no_grad():
        potential.head.starting.formal.element[3, LARGEST + 1] = 60.0  # Na is +1 for certain
        potential.head.starting.formal.element[4] = -60.0
        potential.head.starting.formal.element[4, [LARGEST - 1, LARGEST]] = torch.tensor(
            [1.0, 0.0]
        ).double()
    pair = Atoms("NaCl", [[0, 0, 0], [0, 0, 500.0]])
    found = potential(potential.prepare(from_ase(pair, CUTOFF))).formal
    probabilities = found.probabilities.detach()[:, [LARGEST - 1, LARGEST, LARGEST + 1]]
    chance = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(probabilities, [[0, 0, 1], [chance, 1 - chance, 0]], atol=1e-12)
    np.testing.assert_allclose(found.charges.detach(), [1.0, -1.0], atol=2e-3)


@pytest.mark.parametrize("head", ["acks2", "latent+links", "solve+coulomb+links"])
def test_edges_that_are_no_links_change_nothing(head: str) -> None:
    potential = tiny_potential(head=head)
    graphs = [
        potential.prepare(from_ase(molecule("CH3COOH"), CUTOFF)),
        potential.prepare(from_ase(bulk("NaCl", "rocksalt", a=5.64), CUTOFF)),
    ]
    batch = collate(graphs)
    assert 0 < len(batch.links) < 0.7 * batch.n_edges
    every = batch._replace(links=torch.arange(batch.n_edges))
    few, all_of_them = predict(potential, batch), predict(potential, every)
    for name in ("energy", "forces", "charges"):
        one, other = getattr(few, name), getattr(all_of_them, name)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    alone = torch.cat([predict(potential, graph).charges for graph in graphs])
    torch.testing.assert_close(few.charges, alone, rtol=1e-9, atol=1e-9)


def test_a_field_along_a_periodic_axis_needs_formal_charges_that_stay() -> None:
    potential = tiny_potential(head={"name": "acks2"})
    with pytest.raises(ValueError, match="formal charges by element"):
        calculator(potential, [0.1, 0, 0]).get_forces(salt())


def test_electrode_charges_follow_from_the_grand_potential(potential) -> None:
    atoms, step = acid(), 1e-4

    def grand(volts: float) -> tuple[float, float]:
        model = PhiCalculator(potential, dtype="float64", compile=False, electrode_potential=volts)
        return model.get_potential_energy(atoms), model.get_charges(atoms).sum()

    (above, _), (below, _), (_, charge) = grand(1 + step), grand(1 - step), grand(1)
    assert abs(charge) > 0.1
    assert charge == pytest.approx(-(above - below) / (2 * step), abs=1e-7)


def test_formal_charges_depend_on_what_is_bonded_to_what_only() -> None:
    potential = tiny_potential(head={"name": "acks2", "link_range": 1.3})
    with torch.no_grad():
        potential.head.starting.formal.readout[-1].weight.mul_(30)

    def states(length: float) -> np.ndarray:
        """Probabilities for a molecule of water, one of whose bonds has this length in Å."""
        atoms = molecule("H2O")
        atoms.set_distance(0, 1, length, fix=0)
        graph = potential.prepare(from_ase(atoms, CUTOFF))
        return potential(graph).formal.probabilities.detach().numpy()

    np.testing.assert_array_equal(states(0.95), states(1.0))
    assert abs(states(1.0) - states(2.0)).max() > 0.01
    steps = [states(length) for length in np.arange(1.0, 1.7, 0.0025)]  # links end at 1.26 Å
    largest = max(abs(b - a).max() for a, b in itertools.pairwise(steps))
    assert largest < 0.1 * abs(states(1.0) - states(2.0)).max()


def test_a_metal_nearby_does_not_change_states() -> None:
    """Ions come closer and part all the time: they have no bonds."""
    potential = tiny_potential(elements=("H", "O", "Na"), head="acks2")
    with torch.no_grad():
        potential.head.starting.formal.readout[-1].weight.mul_(30)

    def states(symbol: str, distance: float) -> np.ndarray:
        """Probabilities for water, to whose oxygen another atom comes so near (Å)."""
        atoms = molecule("H2O") + Atoms(symbol, [[0, 0, 0]])
        atoms.positions[3] = atoms.positions[0] + [0, 0, distance]
        graph = potential.prepare(from_ase(atoms, CUTOFF))
        return potential(graph).formal.probabilities.detach().numpy()

    np.testing.assert_array_equal(states("Na", 2.2), states("Na", 3.1))
    assert abs(states("O", 1.4) - states("O", 3.1)).max() > 0.01
