"""Dispersion: its lattice sums in every boundary condition, and what is learned of it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch import Tensor

from phicalc.checkpoint import ModelCard, load_model, save_model
from phicalc.compiled import CompiledPredictor
from phicalc.derivatives import deform, predict
from phicalc.electrostatics import CoulombSettings
from phicalc.graph import AtomicGraph, collate, from_ase
from phicalc.potential import Potential
from phicalc.terms import LearnedDispersion
from phicalc.terms.dispersion import DispersionSum, plan_dispersion
from phicalc.terms.dispersion.formulas import attraction, damping_parameter
from phicalc.terms.dispersion.free_atoms import free_atom_coefficient

from ..physics.conftest import STRUCTURES, tiny_potential

CUTOFF = 4.0
#: Hartree Bohr⁶ in eV Å⁶.
ATOMIC = 27.211386 * 0.52917721**6
SHAPES = ("molecule", "wire", "charged-wire", "slab", "charged-slab", "crystal")


def roots(atoms: Atoms) -> Tensor:
    """Square roots of the coefficients of free atoms, in eV^½ Å³."""
    return torch.tensor([free_atom_coefficient(s) ** 0.5 for s in atoms.symbols]).double()


def damping(length: Tensor) -> Tensor:
    """``f = 1 − exp(−x²) (1 + x² + x⁴/2)`` with x = ar."""
    z = (damping_parameter(CUTOFF) * length) ** 2
    return 1 - torch.exp(-z) * (1 + z + 0.5 * z**2)


def planned(atoms: Atoms, accuracy: float, mesh_above: int = 1000) -> AtomicGraph:
    return plan_dispersion(from_ase(atoms, CUTOFF), CUTOFF, roots(atoms) ** 2, accuracy, mesh_above)


def derivatives(
    energy: Callable[[AtomicGraph], Tensor], graph: AtomicGraph
) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy, forces, and the derivative with respect to a strain of the periodic axes."""
    positions = graph.positions.clone().requires_grad_()
    strain = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
    total = energy(deform(graph._replace(positions=positions), strain))
    gradient, virial = torch.autograd.grad(total, (positions, strain))
    directions = np.linalg.qr(graph.cell[0][graph.pbc[0]].numpy().T)[0]
    return total.item(), -gradient.numpy(), directions.T @ virial[0].numpy() @ directions


def summed(atoms: Atoms, accuracy: float, **options: int) -> tuple[float, np.ndarray, np.ndarray]:
    def energy(graph: AtomicGraph) -> Tensor:
        return DispersionSum(graph, CUTOFF).atomic_energies(roots(atoms)).sum()

    return derivatives(energy, planned(atoms, accuracy, **options))


def brute_force(atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
    """Pair by pair over n cells in all periodic directions, extrapolated to all cells.

    What is beyond falls as ``(n + ½)^−p`` with p = 6 − number of periodic axes, in powers of two.
    """
    periodic = int(atoms.pbc.sum())
    if periodic == 0:
        return within(atoms, 0)
    counts = {1: (30, 60, 120), 2: (8, 16, 32), 3: (4, 8, 12)}[periodic]
    powers = np.array(
        [[1, (n + 0.5) ** (periodic - 6), (n + 0.5) ** (periodic - 8)] for n in counts]
    )
    first = np.linalg.inv(powers)[0]
    found = zip(*(within(atoms, n) for n in counts), strict=True)
    return tuple(sum(w * x for w, x in zip(first, each, strict=True)) for each in found)  # type: ignore[return-value]


def within(atoms: Atoms, n: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Direct sum over all pairs with images up to n cells away."""
    steps = [torch.arange(-n, n + 1) if axis else torch.zeros(1).long() for axis in atoms.pbc]
    shifts = torch.cartesian_prod(*steps).double()
    c, home = roots(atoms), (shifts == 0).all(1)

    def energy(graph: AtomicGraph) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for i in range(len(atoms)):
            for j in range(len(atoms)):
                far = shifts @ graph.cell[0] + graph.positions[j] - graph.positions[i]
                far = far[~home] if i == j else far
                length = far.norm(dim=1)
                total = total - 0.5 * c[i] * c[j] * (damping(length) / length**6).sum()
        return total

    return derivatives(energy, from_ase(atoms, CUTOFF))


#: Atoms that meet nobody but their own images, some of them within the cutoff.
ALONE = {
    "single wire": lambda: Atoms("Ar", cell=[1, 3.4, 1], pbc=[False, True, False]),
    "single slab": lambda: Atoms("Ar", cell=[[3.4, 0, 0], [0, 0, 1], [1.5, 3.2, 0]], pbc=[1, 0, 1]),
    "single crystal": lambda: bulk("Ar", "fcc", a=4.6),
}


@pytest.mark.parametrize("shape", [*SHAPES, *ALONE])
def test_sums_are_those_of_all_pairs_and_images(shape: str) -> None:
    """Energies to what the extrapolation is worth; forces to the accuracy asked for."""
    atoms = (STRUCTURES | ALONE)[shape]()
    energy, forces, virial = brute_force(atoms)
    for accuracy in (1e-3, 1e-5, 1e-7):
        found = summed(atoms, accuracy)
        assert np.sqrt(np.mean(np.sum((found[1] - forces) ** 2, axis=1))) < accuracy
        assert found[0] == pytest.approx(energy, abs=30 * accuracy + 1e-6)
        np.testing.assert_allclose(found[2], virial, atol=100 * accuracy + 1e-5)


def test_rare_gas_crystal_has_the_known_lattice_sum() -> None:
    """All neighbors are far beyond the cutoff: Σ (d/r)⁶ = 14.45392 (Jones & Ingham 1925)."""
    crystal = bulk("Ar", "fcc", a=12.0)
    expected = -0.5 * 14.45392 * 64.2 * ATOMIC / (12.0 / math.sqrt(2)) ** 6
    energy, _, virial = summed(crystal, 1e-9)
    scale = free_atom_coefficient("Ar") / (64.2 * ATOMIC)
    assert energy / scale == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(virial, -2 * energy * np.eye(3), atol=1e-9)


@pytest.mark.parametrize("mesh_above", [1000, 0])
def test_energy_and_pressure_of_the_tail_are_those_of_a_uniform_fluid(mesh_above: int) -> None:
    """Beyond R: ``E/N = −(2π/3) ρ C/R³`` and ``P = −(4π/3) ρ² C/R³``, for any R on average."""
    atoms = bulk("Ar", "fcc", a=7.2, cubic=True).repeat((4, 4, 4))
    atoms.rattle(0.2, rng=np.random.default_rng(5))
    n, volume, coefficient = len(atoms), atoms.get_volume(), free_atom_coefficient("Ar")
    energy, _, virial = summed(atoms, 1e-5, mesh_above=mesh_above)
    distances = atoms.get_all_distances(mic=True)[np.triu_indices(n, 1)]
    assert distances.min() > CUTOFF
    tails, pressures = [], []
    for reach in np.linspace(8, 14, 50):
        inside = coefficient * np.sum(distances[distances < reach] ** -6.0)
        tails.append((energy + inside) * reach**3)
        pressures.append((-np.trace(virial) / 3 + 2 * inside) / volume * reach**3)
    density = n / volume
    assert np.mean(tails) == pytest.approx(-2 * math.pi / 3 * n * density * coefficient, rel=0.02)
    expected = -4 * math.pi / 3 * density**2 * coefficient
    assert np.mean(pressures) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("shape", ["crystal", "charged-crystal"])
@pytest.mark.parametrize("accuracy", [1e-3, 1e-5])
def test_meshes_are_as_accurate_as_asked_for(shape: str, accuracy: float) -> None:
    atoms = STRUCTURES[shape]().repeat((2, 2, 2))
    atoms.rattle(0.1, seed=3)
    exact, found = summed(atoms, 1e-9), summed(atoms, accuracy, mesh_above=0)
    assert 1e-3 * accuracy < np.sqrt(np.mean(np.sum((found[1] - exact[1]) ** 2, axis=1))) < accuracy
    assert found[0] == pytest.approx(exact[0], abs=len(atoms) * accuracy)


def test_pairs_are_differentiable_twice() -> None:
    squared = torch.linspace(0.05, 20, 23, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: attraction(s, 0.65), squared)
    assert torch.autograd.gradgradcheck(lambda s: attraction(s, 0.65), squared)


def test_attraction_is_smooth_and_finite_and_damped_within_the_cutoff_alone() -> None:
    a = damping_parameter(CUTOFF)
    length = torch.linspace(1e-3, 2 * CUTOFF, 8000, dtype=torch.float64, requires_grad=True)
    found = attraction(length**2, a)
    torch.testing.assert_close(found[0].item(), a**6 / 6, rtol=1e-5, atol=0)
    series = length > 0.1  # where the formula has digits left
    expected = damping(length[series]) / length[series] ** 6
    torch.testing.assert_close(found[series], expected, rtol=1e-6, atol=0)
    slope = torch.autograd.grad(found.sum(), length)[0]
    differences = found.diff() / length.diff()
    torch.testing.assert_close(0.5 * (slope[1:] + slope[:-1]), differences, rtol=1e-4, atol=1e-7)
    part = found * length**6
    assert part[length > CUTOFF].min() > 0.993
    assert part[length > 1.25 * CUTOFF].min() > 0.9995
    assert part[length < 0.54 * CUTOFF].max() < 0.5


def test_energy_is_smooth_while_waves_come_and_go() -> None:
    """A cell that grows takes in more vectors k; those fade in, or the energy would jump."""
    crystal = STRUCTURES["crystal"]()
    sizes, energies, slopes, counts = np.linspace(0.97, 1.03, 151), [], [], set()
    for size in sizes:
        atoms = crystal.copy()
        atoms.set_cell(size * crystal.cell, scale_atoms=True)
        energy, _, virial = summed(atoms, 1e-2)
        counts.add(planned(atoms, 1e-2).dispersion.places.shape[1])  # type: ignore[union-attr]
        energies.append(energy)
        slopes.append(np.trace(virial) / size)
    assert len(counts) > 3
    work = 0.5 * (np.array(slopes)[1:] + slopes[:-1]) * np.diff(sizes)
    np.testing.assert_allclose(np.diff(energies), work, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def potential() -> Potential:
    """Return a potential whose coefficients depend on the surroundings."""
    potential = tiny_potential(head="latent", dispersion="learned", force_accuracy=1e-8)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(4)
        weight = potential.dispersion.readout.weight  # type: ignore[union-attr]
        weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return potential


def test_batches_are_loops(potential: Potential) -> None:
    """Of all boundary conditions at once, with and without a mesh."""
    structures = [STRUCTURES[name]() for name in (*SHAPES, "cation")]
    structures += [bulk("NaCl", "rocksalt", a=5.6).repeat((4, 7, 8)), Atoms("O")]
    for each in structures:
        each.info["charge"] = 0
    graphs = [from_ase(atoms, potential.cutoff) for atoms in structures]
    planner = potential.coulomb_planner(CoulombSettings(1e-4))
    together = predict(potential, potential.prepare(collate(graphs), planner))
    joined = predict(potential, collate([potential.prepare(graph, planner) for graph in graphs]))
    single = [predict(potential, potential.prepare(graph, planner)) for graph in graphs]
    assert potential.prepare(graphs[-2], planner).dispersion.mesh is not None  # type: ignore[union-attr]
    for found in (together, joined):
        expected = torch.cat([each.terms["dispersion"] for each in single])
        torch.testing.assert_close(found.terms["dispersion"], expected, rtol=1e-11, atol=1e-11)


def test_cells_of_8_and_64_atoms_are_the_same_crystal(potential: Potential) -> None:
    small = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    terms = [
        predict(potential, potential.prepare(from_ase(atoms, potential.cutoff)), stress=True)
        for atoms in (small, small.repeat((2, 2, 2)))
    ]
    one, two = terms
    torch.testing.assert_close(two.terms["dispersion"], 8 * one.terms["dispersion"])
    torch.testing.assert_close(two.stress, one.stress, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_forces_differentiate_with_respect_to_weights(potential: Potential, shape: str) -> None:
    """Training on forces: the second derivative against differences of forces."""
    graph = potential.prepare(from_ase(STRUCTURES[shape](), potential.cutoff))
    weight = potential.dispersion.readout.weight  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(1)
    probe = torch.randn(graph.positions.shape, generator=generator, dtype=torch.float64)
    direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)

    def work() -> Tensor:
        return (predict(potential, graph, create_graph=True).forces * probe).sum()

    slope = float((torch.autograd.grad(work(), weight)[0] * direction).sum())
    with torch.no_grad():
        before, found = weight.clone(), []
        for step in (-2, -1, 1, 2):
            weight.copy_(before + 1e-5 * step * direction)
            found.append(work_of(potential, graph, probe))
        weight.copy_(before)
    expected = (found[0] - 8 * found[1] + 8 * found[2] - found[3]) / 12e-5
    assert slope == pytest.approx(expected, rel=1e-6)
    assert abs(slope) > 1e-6


def work_of(potential: Potential, graph: AtomicGraph, probe: Tensor) -> float:
    with torch.enable_grad():
        return float((predict(potential, graph).forces * probe).sum())


def test_mesh_forces_differentiate_with_respect_to_coefficients() -> None:
    graph = planned(bulk("NaCl", "rocksalt", a=5.6).repeat((2, 2, 2)), 1e-4, mesh_above=0)
    root = roots(bulk("NaCl", "rocksalt", a=5.6).repeat((2, 2, 2)))
    positions = graph.positions + 0.1 * torch.sin(torch.arange(48.0).double().reshape(16, 3))
    probe = torch.cos(torch.arange(48.0).double().reshape(16, 3))

    def work(scale: Tensor) -> Tensor:
        moved = positions.clone().requires_grad_()
        c = root * (1 + scale * torch.linspace(0, 1, 16).double())
        total = DispersionSum(graph._replace(positions=moved), CUTOFF).atomic_energies(c).sum()
        return (torch.autograd.grad(total, moved, create_graph=True)[0] * probe).sum()

    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    slope = float(torch.autograd.grad(work(zero), zero)[0])
    step = torch.tensor(1e-4).double()
    expected = float((work(step) - work(-step)).detach()) / 2e-4
    assert slope == pytest.approx(expected, rel=1e-6)


def test_before_training_coefficients_are_those_of_free_atoms_and_bounded_ever_after() -> None:
    term = LearnedDispersion(("H", "C", "Ar", "Rn"), 3, CUTOFF)
    element = torch.arange(4)
    features = torch.randn(4, 3)
    free = torch.tensor([6.51, 47.9, 67.4, 408.0]).double() * ATOMIC
    torch.testing.assert_close(term.coefficients(features, element), free, rtol=1e-6, atol=0)
    with torch.no_grad():
        term.readout.weight.fill_(1e3)
    extreme = term.coefficients(torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).expand(4, 3), element)
    factors = torch.tensor([8.0, 1e-3, 8.0, 1e-3]).double()
    torch.testing.assert_close(extreme, factors * free, rtol=1e-6, atol=0)


def test_coefficients_are_learned_from_energies() -> None:
    """Methane at distances beyond the cutoff, with less than half the C6 of its free atoms."""
    potential = tiny_potential(head="none", dispersion="learned")
    term, energies, graphs = potential.dispersion, [], []
    for distance in (9.0, 10.0, 12.0):
        pair = molecule("CH4") + molecule("CH4")
        pair.positions[5:, 2] += distance
        graphs.append(potential.prepare(from_ase(pair, potential.cutoff)))
        energies.append(-129.7 * ATOMIC / distance**6)
    target = torch.tensor(energies).double()
    optimizer = torch.optim.Adam([term.offset], lr=0.05)  # type: ignore[union-attr]

    def found() -> Tensor:
        single = potential(potential.prepare(from_ase(molecule("CH4"), potential.cutoff)))
        both = torch.cat([potential(graph).terms["dispersion"] for graph in graphs])
        return both - 2 * single.terms["dispersion"]

    assert (found() / target).min() > 1.8
    for _ in range(60):
        optimizer.zero_grad()
        (found() / target - 1).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(found(), target, rtol=0.08, atol=0)


def test_elements_without_a_coefficient_are_refused() -> None:
    with pytest.raises(ValueError, match="no dispersion coefficient is known for U"):
        tiny_potential(elements=("O", "U"), head="none", dispersion="learned")


def test_a_sum_without_a_plan_says_what_to_do(potential: Potential) -> None:
    with pytest.raises(ValueError, match=r"potential\.prepare"):
        DispersionSum(from_ase(molecule("H2O"), CUTOFF), CUTOFF)


def test_plans_go_with_all_graphs_or_none(potential: Potential) -> None:
    graph = from_ase(molecule("CH3CH2OH"), potential.cutoff)
    prepared = potential.prepare(graph)
    with pytest.raises(ValueError, match="dispersion"):
        collate([prepared._replace(coulomb=None), graph])


def test_a_straggler_of_a_wire_is_named_as_the_reason() -> None:
    atoms = Atoms("Ar2", [(0, 0, 0), (0, 900, 900)], cell=[4, 1, 1], pbc=[True, False, False])
    with pytest.raises(ValueError, match="an atom far away"):
        planned(atoms, 1e-5)


def test_models_come_back_from_disk(potential: Potential, tmp_path: Path) -> None:
    save_model(tmp_path, potential, ModelCard(name="attractive"))
    loaded, _ = load_model(tmp_path)
    graph = potential.prepare(from_ase(STRUCTURES["crystal"](), potential.cutoff))
    assert loaded.config.dispersion == "learned"
    expected = potential(graph).terms["dispersion"]
    torch.testing.assert_close(loaded(graph).terms["dispersion"], expected, rtol=0, atol=0)


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++)")
@pytest.mark.parametrize("shape", ["crystal", "molecule"])
def test_compiled_is_plain(shape: str, tmp_path: Path) -> None:
    potential = tiny_potential(
        head="none",
        dispersion="learned",
        elements=("H", "C", "O", "Na", "Cl"),
        channels=2,
        layers=1,
    ).eval()
    predictor = CompiledPredictor(potential.requires_grad_(False), True, tmp_path)
    graph = potential.prepare(from_ase(STRUCTURES[shape](), potential.cutoff))
    stress = shape == "crystal"
    found, expected = (each(graph, stress=stress) for each in (predictor, plain(potential)))
    assert list(predictor.functions.values())[0] is not None
    for name in ("energy", "forces", "stress"):
        first, second = getattr(found, name), getattr(expected, name)
        if second is not None and not bool(second.isnan().any()):
            torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.terms["dispersion"], expected.terms["dispersion"])


def plain(potential: Potential) -> Callable[..., object]:
    return lambda graph, stress: predict(potential, graph, stress=stress)
