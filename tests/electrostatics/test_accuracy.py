"""One number, the accuracy of forces, is kept: by the first plan and while a structure changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.geometry import cellpar_to_cell

from phicalc.electrostatics import CoulombPlanner, CoulombSettings, CoulombSum, plan_coulomb
from phicalc.electrostatics.sums.crowding import crowding, neighbors_together
from phicalc.graph import from_ase

from .ions import PBC, Ions, float64, random_ions, rms

methods = pytest.mark.parametrize("method", ["ewald", "mesh"])
kinds = pytest.mark.parametrize("kind", PBC)


def random_case(number: int) -> Ions:
    """2 to 150 ions: any periodic axes, equal or unequal widths of 0.3 to 1.5 Å, any net charge."""
    rng = np.random.default_rng([5, number])
    low, high = rng.uniform(0.3, 0.7), rng.uniform(0.7, 1.5)
    return random_ions(
        100 + number,
        tuple((rng.random(3) < 0.6).tolist()),
        n_ions=round(math.exp(rng.uniform(math.log(2), math.log(150)))),
        net_charge=0.0 if number % 4 < 2 else None,
        widths=(low, high) if number % 2 else (high, high),
        density=0.05,
    )


@cache
def with_exact_forces(
    make: Callable[[Any], Ions], argument: Any, settings: CoulombSettings
) -> tuple[Ions, torch.Tensor]:
    """Make ions and forces that are taken for exact, once for all methods and accuracies."""
    ions = make(argument)
    return ions, ions.forces(settings)


@methods
@pytest.mark.parametrize("accuracy", [1e-3, 1e-5])
@pytest.mark.parametrize("number", range(12))
def test_forces_are_as_accurate_as_asked(number: int, accuracy: float, method: str) -> None:
    ions, exact = with_exact_forces(random_case, number, CoulombSettings(1e-9, "ewald"))
    assert rms(ions.forces(CoulombSettings(accuracy, method)) - exact) < accuracy


def lone_pair(distance: float) -> Ions:
    """Two ions in a cell of 50 Å: the errors of near ones do not fall with the volume."""
    positions = [[0.1, 0.2, 0.3], [0.1 + 0.8 * distance, 0.2 + 0.6 * distance, 0.3]]
    atoms = Atoms("H2", positions=positions, cell=[50.0] * 3, pbc=True)
    return Ions(atoms, float64([1.0, -1.0]), float64([0.4, 0.4]))


@methods
@pytest.mark.parametrize("accuracy", [1e-4, 1e-6])
@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_forces_in_a_large_cell_are_as_accurate_as_asked(
    distance: float, accuracy: float, method: str
) -> None:
    exactly = CoulombSettings(1e-9, "ewald", splitting=0.35)
    ions, exact = with_exact_forces(lone_pair, distance, exactly)
    assert rms(ions.forces(CoulombSettings(accuracy, method)) - exact) < accuracy


def sheet(seed: int) -> Ions:
    """50 like charges within 0.6 Å of a plane, some of them 3 Å wide."""
    rng = np.random.default_rng([7, seed])
    places = rng.random((50, 3)) * [1.0, 1.0, 0.6 / 35.0]
    atoms = Atoms("H50", cell=[5.4, 5.4, 35.0], pbc=True, scaled_positions=places)
    widths = np.exp(rng.uniform(math.log(0.05), math.log(3.0), 50))
    return Ions(atoms, torch.ones(50, dtype=torch.float64), torch.as_tensor(widths))


def rod(seed: int) -> Ions:
    """17 ions of either sign in a cell of aspect 35:1, whose images make planes of like charge."""
    rng = np.random.default_rng([8, seed])
    cell = cellpar_to_cell([2.9, 2.9, 60.0, 60.0, 120.0, 150.0])
    atoms = Atoms("H17", cell=cell, pbc=True, scaled_positions=rng.random((17, 3)))
    widths = np.exp(rng.uniform(math.log(0.05), math.log(3.0), 17))
    return Ions(atoms, torch.as_tensor((-1.0) ** np.arange(17)), torch.as_tensor(widths))


@methods
@pytest.mark.parametrize("accuracy", [1e-2, 1e-4])
@pytest.mark.parametrize("crowd", [sheet, rod])
def test_forces_of_crowded_ions_are_as_accurate_as_asked(
    crowd: Callable[[int], Ions], accuracy: float, method: str
) -> None:
    for seed in range(3):
        ions, exact = with_exact_forces(crowd, seed, CoulombSettings(1e-7, "ewald"))
        assert rms(ions.forces(CoulombSettings(accuracy, method)) - exact) < 0.8 * accuracy


@methods
def test_looser_sums_are_cheaper_and_less_accurate(method: str) -> None:
    ions = random_ions(1, n_ions=40)
    exact = ions.forces()
    errors, work = [], []
    for accuracy in (1e-6, 1e-4, 1e-2):
        settings = CoulombSettings(accuracy, method)
        plan = ions.graph(settings).coulomb
        points = 0 if plan.mesh is None else int(plan.mesh[0].prod())
        errors.append(rms(ions.forces(settings) - exact))
        work.append(plan.pair_index.shape[1] + 40 * plan.kvectors.shape[1] + points)
    assert errors == sorted(errors)
    assert errors[2] > 100 * errors[0]
    assert work == sorted(work, reverse=True)


@pytest.mark.parametrize("kind", ["slab", "crystal"])
def test_small_charges_are_summed_with_less_work(kind: str) -> None:
    ions = random_ions(2, PBC[kind], n_ions=20, widths=(0.6, 0.6))
    weak = Ions(ions.atoms, 0.1 * ions.charges, ions.widths)
    settings = CoulombSettings(1e-4, "ewald")
    works = [len(each.graph(settings).coulomb.kvectors[0]) for each in (weak, ions)]
    assert works[0] < works[1]
    assert rms(weak.forces(settings) - weak.forces()) < 1e-4


def test_explicit_settings_are_taken_as_they_are() -> None:
    ions = random_ions(3, PBC["slab"])
    plan = ions.graph(CoulombSettings(1e-4, "ewald", 0.42, real_cutoff=7.0, k_cutoff=3.0)).coulomb
    assert plan.splitting.tolist() == [0.42]
    coulomb = ions.sum(CoulombSettings(1e-4, "ewald", 0.42, real_cutoff=7.0, k_cutoff=3.0))
    k = coulomb.plan.kvectors[0].double() @ (2 * np.pi * torch.linalg.inv(coulomb.box[0]).T)
    assert 2.7 < float(k.norm(dim=1).max()) <= 3.0
    far = coulomb.graph.positions[plan.pair_index[1]] - coulomb.graph.positions[plan.pair_index[0]]
    far = (far + plan.pair_shifts.double() @ coulomb.graph.cell[0]).norm(dim=1)
    assert 6.5 < float(far.max()) <= 7.0
    plan = ions.graph(CoulombSettings(1e-4, "mesh", mesh=(12, 48, 16), spline_order=4)).coulomb
    assert plan.mesh.tolist() == [[12, 48, 16, 4]]


def test_explicit_cutoff_holds_for_wide_ions_too() -> None:
    ions = random_ions(3, widths=(1.5, 1.5))
    coulomb = ions.sum(CoulombSettings(1e-5, "ewald", real_cutoff=6.0))
    graph, plan = coulomb.graph, coulomb.plan
    vectors = graph.positions[plan.pair_index[1]] - graph.positions[plan.pair_index[0]]
    distances = (vectors + plan.pair_shifts.double() @ graph.cell[0]).norm(dim=1)
    assert float(distances.max()) <= 6.0


def test_automatic_method_is_the_cheapest() -> None:
    few, many = (random_ions(4, n_ions=n, widths=(0.6, 0.6)) for n in (4, 2000))
    assert few.graph(CoulombSettings()).coulomb.mesh is None
    assert many.graph(CoulombSettings()).coulomb.mesh is not None
    alone = random_ions(4, PBC["molecule"], n_ions=20).graph(CoulombSettings()).coulomb
    assert alone.splitting.tolist() == [0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"force_accuracy": 1e-15}, "'force_accuracy' must be in"),
        ({"force_accuracy": 10.0}, "'force_accuracy' must be in"),
        ({"force_accuracy": math.nan}, "'force_accuracy' must be a finite number"),
        ({"splitting": -0.3}, "'splitting' must be positive"),
        ({"splitting": 0.0}, "'splitting' must be positive"),
        ({"real_cutoff": math.inf}, "'real_cutoff' must be a finite number"),
        ({"k_cutoff": math.nan}, "'k_cutoff' must be a finite number"),
        ({"charge_scale": -1.0}, "'charge_scale' must be positive"),
        ({"spline_order": 8}, r"'spline_order' must be in \[3, 7\]"),
        ({"spline_order": 2}, r"'spline_order' must be in \[3, 7\]"),
        ({"mesh": (8, 8, 2)}, r"'mesh\[2\]' must be ≥ 4, got 2"),
        ({"mesh": (8, 8, 8), "method": "ewald"}, "mesh and spline_order are for"),
        ({"spline_order": 5, "k_cutoff": 3.0}, "k_cutoff is for"),
    ],
    ids=str,
)
def test_absurd_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoulombSettings(**settings)


@pytest.mark.parametrize("mesh", [(15, 12, 12), (12, 15, 12), (12, 12, 15)])
def test_odd_meshes_are_refused(mesh: tuple[int, int, int]) -> None:
    # An odd number of points has no highest frequency that is its own mirror image.
    with pytest.raises(ValueError, match=r"'mesh\[[012]\]' must be even, got 15"):
        CoulombSettings(1e-2, "mesh", mesh=mesh, spline_order=5)


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf])
def test_absurd_widths_are_refused(width: float) -> None:
    ions = random_ions(6)
    widths = ions.widths.clone()
    widths[2] = width
    with pytest.raises(ValueError, match="smearing must be"):
        Ions(ions.atoms, ions.charges, widths).graph()


@pytest.mark.parametrize("charge", [math.nan, math.inf])
def test_absurd_charges_are_refused(charge: float) -> None:
    ions = random_ions(6)
    charges = ions.charges.clone()
    charges[2] = charge
    with pytest.raises(ValueError, match="charges must be finite"):
        Ions(ions.atoms, charges, ions.widths).graph()


@pytest.mark.parametrize("kind", ["wire", "slab", "crystal"])
def test_direct_sum_of_a_periodic_structure_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="method='direct' is for open structures"):
        random_ions(7, PBC[kind]).graph(CoulombSettings(method="direct"))


def strained(ions: Ions, stretch: float) -> Ions:
    """Stretched along one oblique direction."""
    direction = np.array([0.5, 0.7, 0.51])
    direction /= np.linalg.norm(direction)
    deformation = np.eye(3) + stretch * np.outer(direction, direction)
    return ions.changed(
        positions=ions.atoms.positions @ deformation, cell=ions.atoms.cell.array @ deformation
    )


def planned_energy(planner: CoulombPlanner, ions: Ions) -> float:
    graph = planner.plan(from_ase(ions.atoms, 1.0), ions.widths, ions.charges)
    return float(CoulombSum(graph, ions.widths).energy(ions.charges))


@kinds
@methods
def test_parameters_stay_while_a_cell_changes_a_little(kind: str, method: str) -> None:
    ions = random_ions(8, PBC[kind], n_ions=12)
    planner = CoulombPlanner(CoulombSettings(1e-4, method))
    planned_energy(planner, ions)
    first = planner.parameters
    for stretch in (0.01, -0.02, 0.03):
        planned_energy(planner, strained(ions, stretch))
        assert planner.parameters is first
    assert planner.changes == 1


@methods
@pytest.mark.parametrize("stretch", [0.17, -0.17])
def test_parameters_change_with_a_cell_that_has_changed_much(method: str, stretch: float) -> None:
    ions = random_ions(9, n_ions=12)
    planner = CoulombPlanner(CoulombSettings(1e-4, method))
    planned_energy(planner, ions)
    planned_energy(planner, strained(ions, stretch))
    assert planner.changes == 2


@methods
def test_parameters_change_before_the_error_exceeds_the_accuracy(method: str) -> None:
    ions = random_ions(10, n_ions=30)
    accuracy = 1e-4
    planner = CoulombPlanner(CoulombSettings(accuracy, method))
    changes = []
    for stretch in np.linspace(0, 0.4, 9):
        case = strained(ions, stretch)
        graph = planner.plan(from_ase(case.atoms, 1.0), case.widths, case.charges)
        graph = graph._replace(positions=graph.positions.requires_grad_())
        energy = CoulombSum(graph, case.widths).energy(case.charges).sum()
        (gradient,) = torch.autograd.grad(energy, graph.positions)
        assert rms(-gradient - case.forces()) < accuracy
        changes.append(planner.changes)
    assert 2 <= changes[-1] < 6


@methods
def test_growing_charges_get_better_sums(method: str) -> None:
    ions = random_ions(11, n_ions=12)
    planner = CoulombPlanner(CoulombSettings(1e-4, method))
    planned_energy(planner, ions)
    planned_energy(planner, Ions(ions.atoms, 1.05 * ions.charges, ions.widths))
    assert planner.changes == 1
    planned_energy(planner, Ions(ions.atoms, 10 * ions.charges, ions.widths))
    assert planner.changes == 2


@kinds
@methods
def test_energy_hardly_jumps_when_parameters_change(kind: str, method: str) -> None:
    ions = random_ions(12, PBC[kind], n_ions=20)
    settings = CoulombSettings(1e-4, method)
    jumps = []
    for stretch in (0.05, 0.08, 0.11):
        old = CoulombPlanner(settings)
        planned_energy(old, ions)
        now = strained(ions, stretch)
        jumps.append(planned_energy(old, now) - planned_energy(CoulombPlanner(settings), now))
    # Forces that err by the accuracy make energies that err by as much over an ångström.
    assert max(np.abs(jumps)) < 2 * settings.force_accuracy


@methods
@pytest.mark.parametrize("kind", ["molecule", "wire", "slab"])
def test_box_along_open_axes_grows_with_the_structure(kind: str, method: str) -> None:
    ions = random_ions(13, PBC[kind], n_ions=6)
    planner = CoulombPlanner(CoulombSettings(1e-5, method))
    away = ~ions.atoms.pbc / np.linalg.norm(~ions.atoms.pbc)
    normal = np.linalg.svd(ions.atoms.cell.array[ions.atoms.pbc])[2][-1] if any(PBC[kind]) else away
    lengths = []
    for distance in (0.0, 1.0, 8.0, 30.0):
        positions = ions.atoms.positions.copy()
        positions[0] += distance * normal
        moved = ions.changed(positions=positions)
        graph = planner.plan(from_ase(moved.atoms, 1.0), moved.widths, moved.charges)
        lengths.append(float(graph.coulomb.open_length))
        energy = float(CoulombSum(graph, moved.widths).energy(moved.charges))
        assert energy == pytest.approx(moved.energy(), abs=1e-4)
    assert lengths[3] > lengths[0] + 30.0
    assert planner.changes < 4


def test_planner_forgets_when_atoms_or_axes_are_others() -> None:
    planner = CoulombPlanner(CoulombSettings(1e-4, "ewald"))
    cases = [
        random_ions(14, PBC["crystal"], n_ions=5),
        random_ions(14, PBC["slab"], n_ions=5),
        random_ions(14, PBC["slab"], n_ions=5, widths=(0.4, 0.9)),
        random_ions(14, PBC["slab"], n_ions=7, widths=(0.4, 0.9)),
    ]
    for changes, ions in enumerate(cases, start=1):
        assert planned_energy(planner, ions) == pytest.approx(ions.energy(), abs=1e-3)
        assert planner.changes == changes


def test_empty_and_one_ion_structures_have_plans() -> None:
    nothing = from_ase(Atoms(cell=[5, 5, 5], pbc=True), 1.0)
    graph = plan_coulomb(nothing, torch.zeros(0, dtype=torch.float64))
    energy = CoulombSum(graph, torch.zeros(0).double()).energy(torch.zeros(0).double())
    assert energy.tolist() == [0.0]
    for pbc in PBC.values():
        ion = Ions(Atoms("H", cell=[5, 4, 6], pbc=pbc), float64([1.0]), float64([0.5]))
        values = [ion.energy(CoulombSettings(1e-6, method)) for method in ("auto", "ewald", "mesh")]
        assert values == pytest.approx([ion.energy()] * 3, abs=1e-6)
        assert float(ion.forces(CoulombSettings(1e-4, "mesh")).norm()) < 1e-4


def counts_of(atoms: Atoms) -> tuple[float, ...]:
    return crowding(*(torch.as_tensor(x) for x in (atoms.positions, atoms.cell.array, atoms.pbc)))


def test_uniform_matter_is_not_crowded() -> None:
    for repeat in (1, 3):
        salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
        assert max(neighbors_together(counts_of(salt), a) for a in (0.2, 0.4, 0.7)) < 0.1


@pytest.mark.parametrize("repeat", [1, 3])
def test_neighbors_in_a_plane_are_counted(repeat: int) -> None:
    # ∫ of both Gaussians over a plane of one atom per Å²: its images in a thin cell, or neighbors.
    atoms = Atoms("H", cell=[1.0, 1.0, 60.0], pbc=True).repeat((repeat, repeat, 1))
    for splitting in (0.2, 0.35, 0.5):
        together = neighbors_together(counts_of(atoms), splitting)
        assert together == pytest.approx(math.pi / splitting**2, rel=0.2)


def test_an_atom_alone_is_not_crowded() -> None:
    assert max(counts_of(Atoms("H", cell=[30.0] * 3, pbc=True))) == 0.0
    assert max(counts_of(Atoms("H"))) == 0.0
    assert neighbors_together((), 0.4) == 0.0
