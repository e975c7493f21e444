"""Sums of molecules, wires, slabs and crystals against explicit lattice sums and exact limits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy import special
from scipy.spatial.transform import Rotation

from phicalc.derivatives import deform
from phicalc.electrostatics import CoulombSettings, CoulombSum
from phicalc.graph import AtomicGraph
from phicalc.units import COULOMB_CONSTANT

from .ions import EXACT, PBC, Ions, float64, random_ions

MESH = CoulombSettings(1e-6, "mesh")
SETTINGS = {"ewald": EXACT, "mesh": MESH}
#: Energies in eV may differ by so much.
TOLERANCE = {"ewald": 1e-9, "mesh": 1e-6}
NET_CHARGES = {"neutral": 0.0, "charged": 0.7}
LAYERS = [(True, True, False), (True, False, True), (False, True, True)]
CHAINS = [(True, False, False), (False, True, False), (False, False, True)]

methods = pytest.mark.parametrize("method", SETTINGS)
net_charges = pytest.mark.parametrize("net_charge", NET_CHARGES.values(), ids=NET_CHARGES)
kinds = pytest.mark.parametrize("kind", PBC)


def pairs(ions: Ions) -> list[tuple[np.ndarray, float, float]]:
    """Vector, decay 1/(√2 γ), and energy weight of every ordered pair, each ion with itself too."""
    q, sigma, positions = ions.charges.numpy(), ions.widths.numpy(), ions.atoms.positions
    return [
        (
            positions[i] - positions[j],
            float(1 / np.sqrt(2 * (sigma[i] ** 2 + sigma[j] ** 2))),
            0.5 * COULOMB_CONSTANT * q[i] * q[j],
        )
        for i, j in itertools.product(range(len(q)), repeat=2)
    ]


def slab_energy(ions: Ions) -> float:
    """Lattice sum in two dimensions: D. E. Parry, Surf. Sci. 49, 433 (1975), for Gaussians.

    With α = 1/(√2 γ) of the charges themselves Parry's Ewald sum has no real-space part left.
    """
    rows = ions.atoms.cell.array[ions.atoms.pbc]
    normal = np.cross(*rows)
    area = float(np.linalg.norm(normal))
    normal /= area
    millers = np.array([m for m in itertools.product(range(-30, 31), repeat=2) if m != (0, 0)])
    waves = millers @ (2 * np.pi * np.linalg.inv(np.vstack([rows, normal])).T)[:2]
    k = np.linalg.norm(waves, axis=1)
    k, waves = k[k < 20], waves[k < 20]
    energy = 0.0
    for vector, alpha, weight in pairs(ions):
        z = vector @ normal
        terms = [np.exp(s * k * z) * special.erfc(k / (2 * alpha) + s * alpha * z) for s in (1, -1)]
        uniform = z * math.erf(alpha * z) + math.exp(-((alpha * z) ** 2)) / (alpha * np.sqrt(np.pi))
        potential = (np.cos(waves @ vector) / k * sum(terms)).sum() - 2 * uniform
        energy += weight * np.pi / area * potential
    return energy


def wire_energy(ions: Ions) -> float:
    """Lattice sum in one dimension: Poisson summation of erf(αr)/r = (2/√π) ∫₀^α exp(−r²t²) dt."""
    (row,) = ions.atoms.cell.array[ions.atoms.pbc]
    length = float(np.linalg.norm(row))
    k = 2 * np.pi / length * np.arange(1, 60)[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(200)
    energy = 0.0
    for vector, alpha, weight in pairs(ions):
        along = vector @ row / length
        rho_squared = vector @ vector - along**2
        t = alpha * (nodes + 1) / 2
        integrand = np.exp(-rho_squared * t**2 - k**2 / (4 * t**2)) / t
        waves = 2 * alpha * np.cos(k[:, 0] * along) @ (integrand @ weights)
        itself = rho_squared < 1e-12
        uniform = (
            np.euler_gamma + math.log(alpha**2)
            if itself
            else -math.log(rho_squared) - special.exp1(alpha**2 * rho_squared)
        )
        energy += weight / length * (waves + uniform)
    return energy


def awkward(ions: Ions, seed: int) -> Ions:
    """Rotated, with ions outside the cell and, for odd seeds, left-handed; open edges are junk."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(rng=rng).as_matrix()
    cell = ions.atoms.cell.array @ rotation
    away = rng.integers(-2, 3, (len(ions.atoms), 3)) * ions.atoms.pbc
    positions = ions.atoms.positions @ rotation + away @ cell
    cell[~ions.atoms.pbc] = rng.normal(size=3) * (seed % 3)
    if (np.linalg.det(cell) > 0) == bool(seed % 2) and ions.atoms.pbc.any():
        cell[ions.atoms.pbc.argmax()] *= -1
    return ions.changed(positions=positions, cell=cell)


@methods
@net_charges
@pytest.mark.parametrize("pbc", LAYERS + CHAINS, ids=str)
def test_energy_is_the_explicit_lattice_sum(
    pbc: tuple[bool, bool, bool], net_charge: float, method: str
) -> None:
    explicit = slab_energy if sum(pbc) == 2 else wire_energy
    ions = random_ions(3, pbc, net_charge=net_charge)
    for seed, case in enumerate([ions, awkward(ions, 1), awkward(ions, 2)]):
        energy = case.energy(SETTINGS[method])
        assert energy == pytest.approx(explicit(case), abs=TOLERANCE[method]), seed


@net_charges
@pytest.mark.parametrize("kind", ["wire", "slab"])
def test_thin_cells_are_summed_rightly(kind: str, net_charge: float) -> None:
    # Cells much smaller than Gaussians, where one ion meets many images of itself.
    atoms = Atoms(
        "HHe", positions=[[0, 0, 0], [0.2, 0.4, 5.0]], cell=[1.1, 0.9, 1.3], pbc=PBC[kind]
    )
    ions = Ions(atoms, float64([1.0, net_charge - 1]), float64([0.4, 1.5]))
    explicit = slab_energy if kind == "slab" else wire_energy
    assert ions.energy() == pytest.approx(explicit(ions), abs=1e-9)
    assert ions.energy(MESH) == pytest.approx(explicit(ions), abs=1e-6)


def test_neutral_slab_is_the_limit_of_large_vacuum() -> None:
    # With the slab term of Yeh & Berkowitz, J. Chem. Phys. 111, 3155 (1999).
    ions = random_ions(1, PBC["slab"])
    rows = ions.atoms.cell.array.copy()
    normal = np.cross(rows[0], rows[2])
    normal /= np.linalg.norm(normal)
    rows[1] = 40.0 * normal
    dipole = float(ions.charges.numpy() @ ions.atoms.positions @ normal)
    volume = abs(float(np.linalg.det(rows)))
    thick = ions.changed(cell=rows, pbc=True)
    corrected = thick.energy() + 2 * np.pi * COULOMB_CONSTANT * dipole**2 / volume
    assert ions.energy() == pytest.approx(corrected, abs=1e-8)


def test_neutral_wire_is_the_sum_over_many_images() -> None:
    ions = random_ions(2, PBC["wire"])
    row = ions.atoms.cell.array[1]

    def summed(n_images: int) -> float:
        shifts = np.arange(-n_images, n_images + 1)[:, None] * row
        energy = 0.0
        for vector, alpha, weight in pairs(ions):
            r = np.linalg.norm(vector + shifts, axis=1)
            apart = np.where(r > 0, r, 1.0)
            energy += (
                weight
                * np.where(r > 0, special.erf(alpha * r) / apart, 2 * alpha / np.sqrt(np.pi)).sum()
            )
        return energy

    # What is missing is the interaction of dipoles, Σ 1/n³ over n > N: 1/(2N(N + 1)) to order N⁻⁴.
    few, many = 400, 1600
    first, second = few * (few + 1), many * (many + 1)
    limit = (second * summed(many) - first * summed(few)) / (second - first)
    assert ions.energy() == pytest.approx(limit, abs=1e-8)


@methods
@pytest.mark.parametrize("distance", [15.0, 60.0])
def test_far_from_a_charged_slab_the_potential_is_that_of_a_plane(
    distance: float, method: str
) -> None:
    atoms = Atoms(
        "HHe", positions=[[0, 0, 0], [1.0, distance, 2.0]], cell=[5, 0, 4], pbc=PBC["slab"]
    )
    ions = Ions(atoms, float64([0.7, 0.0]), float64([0.5, 0.8]))
    potential = ions.sum(SETTINGS[method]).potential(ions.charges)[1]
    expected = -2 * np.pi * COULOMB_CONSTANT * 0.7 * distance / 20.0
    assert float(potential) == pytest.approx(expected, abs=1e-6)


@methods
@pytest.mark.parametrize("distance", [15.0, 60.0])
def test_far_from_a_charged_wire_the_potential_is_that_of_a_line(
    distance: float, method: str
) -> None:
    positions = [[0, 0, 0], [0.6 * distance, 1.0, 0.8 * distance]]
    atoms = Atoms("HHe", positions=positions, cell=[0, 4, 0], pbc=PBC["wire"])
    ions = Ions(atoms, float64([0.7, 0.0]), float64([0.5, 0.8]))
    potential = ions.sum(SETTINGS[method]).potential(ions.charges)[1]
    expected = -2 * COULOMB_CONSTANT * 0.7 * math.log(distance) / 4.0
    assert float(potential) == pytest.approx(expected, abs=1e-6)


@methods
@net_charges
def test_fourier_sum_of_a_molecule_is_its_direct_sum(net_charge: float, method: str) -> None:
    ions = random_ions(4, PBC["molecule"], n_ions=9, net_charge=net_charge)
    direct = CoulombSettings(method="direct")
    assert ions.energy(SETTINGS[method]) == pytest.approx(
        ions.energy(direct), abs=TOLERANCE[method]
    )
    torch.testing.assert_close(
        ions.forces(SETTINGS[method]),
        ions.forces(direct),
        rtol=0,
        atol=SETTINGS[method].force_accuracy,
    )


@methods
def test_fourier_sum_of_a_pair_follows_coulombs_law(method: str) -> None:
    for distance in (8.0, 16.0, 32.0):
        atoms = Atoms("HHe", positions=[[0, 0, 0], [0, 0.6 * distance, 0.8 * distance]])
        widths = float64([0.5, 0.8])
        ions = Ions(atoms, float64([1.0, -0.7]), widths)
        itself = (ions.charges**2 / widths).sum().item() * COULOMB_CONSTANT / (2 * np.sqrt(np.pi))
        interaction = ions.energy(SETTINGS[method]) - itself
        assert interaction == pytest.approx(-0.7 * COULOMB_CONSTANT / distance, abs=1e-6)


@kinds
@net_charges
def test_energy_depends_neither_on_the_splitting_nor_on_the_method(
    kind: str, net_charge: float
) -> None:
    ions = random_ions(5, PBC[kind], net_charge=net_charge)
    energies = [
        ions.energy(CoulombSettings(1e-6, method, splitting=splitting))
        for method in ("ewald", "mesh")
        for splitting in (0.4, 0.6)
    ]
    assert np.ptp(energies) < 1e-6


@kinds
@methods
def test_energy_stays_under_rotation_of_everything(kind: str, method: str) -> None:
    ions = random_ions(6, PBC[kind], net_charge=0.7)
    rotation = Rotation.from_rotvec([0.4, -1.1, 0.8]).as_matrix()
    rotated = ions.changed(
        positions=ions.atoms.positions @ rotation, cell=ions.atoms.cell.array @ rotation
    )
    settings = SETTINGS[method]
    assert rotated.energy(settings) == pytest.approx(ions.energy(settings), abs=TOLERANCE[method])
    turned = ions.forces(settings) @ torch.as_tensor(rotation)
    torch.testing.assert_close(
        rotated.forces(settings), turned, rtol=0, atol=settings.force_accuracy
    )


@methods
@pytest.mark.parametrize("kind", ["wire", "slab", "crystal"])
def test_energy_does_not_depend_on_the_order_of_the_axes(kind: str, method: str) -> None:
    ions = random_ions(7, PBC[kind], net_charge=0.7)
    energies = [
        ions.changed(
            cell=ions.atoms.cell.array[list(order)], pbc=ions.atoms.pbc[list(order)]
        ).energy(SETTINGS[method])
        for order in ((0, 1, 2), (1, 2, 0), (2, 1, 0))
    ]
    assert np.ptp(energies) < TOLERANCE[method]


@methods
@net_charges
@pytest.mark.parametrize("kind", ["wire", "slab", "crystal"])
def test_energy_is_extensive_along_periodic_axes(kind: str, net_charge: float, method: str) -> None:
    ions = random_ions(8, PBC[kind], n_ions=3, net_charge=net_charge)
    for axis in np.flatnonzero(ions.atoms.pbc):
        repeat = [1, 1, 1]
        repeat[axis] = 2
        double = Ions(ions.atoms.repeat(repeat), ions.charges.repeat(2), ions.widths.repeat(2))
        assert double.energy(SETTINGS[method]) == pytest.approx(
            2 * ions.energy(SETTINGS[method]), abs=2 * TOLERANCE[method]
        )


def test_dipole_across_a_slab_feels_no_other_slab() -> None:
    # Whatever the vector of the open axis says: only `pbc` decides, never the geometry.
    ions = random_ions(9, PBC["slab"])
    energies = []
    for edge in ([0, 0, 0], [0, 3, 0], [1, 400, -2]):
        cell = ions.atoms.cell.array.copy()
        cell[1] = edge
        energies.append(ions.changed(cell=cell).energy())
    assert np.ptp(energies) == 0


METHODS_OF = [
    *((kind, method) for kind in PBC for method in ("ewald", "mesh")),
    ("molecule", "direct"),
]


@pytest.mark.parametrize(("kind", "method"), METHODS_OF)
@pytest.mark.parametrize("variable", ["positions", "strain", "charges"])
def test_derivatives_are_those_of_the_energy(kind: str, method: str, variable: str) -> None:
    ions = random_ions(10, PBC[kind], net_charge=0.7)  # a neutral one lacks terms, and has no more
    # An energy of splines of order 7 has five continuous derivatives.
    order = 7 if method == "mesh" else None
    graph = ions.graph(CoulombSettings(1e-2, method, spline_order=order))
    generator = torch.Generator().manual_seed(1)
    directions = {
        "positions": torch.randn(graph.positions.shape, generator=generator).double(),
        "strain": torch.randn(graph.cell.shape, generator=generator).double(),
        "charges": torch.randn(graph.n_atoms, generator=generator).double(),
    }

    def derivatives(step: float) -> list[float]:
        """Energy and its first and second derivative along the direction, after a step."""
        s = torch.tensor(step, dtype=torch.float64, requires_grad=True)
        moves = {name: s * d if name == variable else 0 * d for name, d in directions.items()}
        moved: AtomicGraph = deform(graph, moves["strain"])
        moved = moved._replace(positions=moved.positions + moves["positions"])
        values = [CoulombSum(moved, ions.widths).energy(ions.charges + moves["charges"]).sum()]
        for _ in range(2):
            values += torch.autograd.grad(values[-1], s, create_graph=True)
        return [value.item() for value in values]

    exact = derivatives(0.0)
    h = 1e-3
    around = [np.array(derivatives(step)) for step in (-2 * h, -h, h, 2 * h)]
    differences = (around[0] - 8 * around[1] + 8 * around[2] - around[3]) / (12 * h)
    assert differences[:2] == pytest.approx(exact[1:], rel=1e-6, abs=1e-8)


@kinds
@pytest.mark.parametrize("method", ["ewald", "mesh"])
def test_energy_passes_gradgradcheck_in_everything_at_once(kind: str, method: str) -> None:
    ions = random_ions(11, PBC[kind], n_ions=2, net_charge=0.7)
    order = 7 if method == "mesh" else None
    graph = ions.graph(CoulombSettings(0.1, method, spline_order=order))

    def energy(
        positions: torch.Tensor, strain: torch.Tensor, charges: torch.Tensor, widths: torch.Tensor
    ) -> torch.Tensor:
        moved = deform(graph._replace(positions=positions), strain)
        return CoulombSum(moved, widths).energy(charges).sum()

    inputs = (graph.positions, torch.zeros_like(graph.cell), ions.charges, ions.widths)
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    options = {"eps": 1e-5, "atol": 1e-6, "rtol": 1e-5, "fast_mode": True}
    assert torch.autograd.gradcheck(energy, inputs, **options)
    assert torch.autograd.gradgradcheck(energy, inputs, **options)
