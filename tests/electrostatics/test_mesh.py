"""Sums on a mesh: its splines, and what a mesh must not do to charges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.interpolate import BSpline

from phicalc.electrostatics import CoulombSettings, CoulombSum
from phicalc.electrostatics.sums.accuracy import ORDERS
from phicalc.electrostatics.sums.splines import deconvolution, overlap, smooth_size, spline_weights
from phicalc.graph import collate

from .ions import PBC, Ions, float64, random_ions, rms

orders = pytest.mark.parametrize("order", ORDERS)
#: Part of the force of a mesh on a lone ion that its correction leaves, rounded up.
REMAINING_PULL = {3: 0.2, 4: 0.15, 5: 0.04, 6: 0.025, 7: 0.006}

kinds = pytest.mark.parametrize("kind", PBC)


def bspline(order: int, x: np.ndarray) -> np.ndarray:
    """Cardinal B-spline M_p of scipy, which is not zero on [0, p]."""
    inside = (x >= 0) & (x < order)
    return np.where(inside, BSpline.basis_element(np.arange(order + 1))(np.clip(x, 0, order)), 0)


@orders
def test_weights_are_b_splines_that_sum_to_one(order: int) -> None:
    offsets = torch.rand(3, 20, dtype=torch.float64)
    weights = spline_weights(offsets, order)
    torch.testing.assert_close(weights.sum(0), torch.ones(3, 20).double(), rtol=0, atol=1e-13)
    for j in range(order):
        expected = bspline(order, offsets.numpy() + j)
        np.testing.assert_allclose(weights[j].numpy(), expected, rtol=0, atol=1e-13)


@orders
def test_weights_are_right_at_the_ends_of_an_interval(order: int) -> None:
    ends = spline_weights(float64([[0.0, 0.5, 1.0]] * 3), order)[:, 0]
    expected = np.stack([bspline(order, u + np.arange(order)) for u in (0.0, 0.5, 1.0)])
    np.testing.assert_allclose(ends.numpy().T, expected, rtol=0, atol=1e-13)


@orders
@pytest.mark.parametrize("harmonic", [0, 1, 2])
def test_overlap_is_the_fourier_coefficient_of_the_spread_charge(order: int, harmonic: int) -> None:
    points, n_places = 10, 1000
    places = (np.arange(n_places) + 0.5) / n_places
    steps = np.arange(order)
    shares = bspline(order, places[:, None] + steps)
    waves = np.exp(2j * np.pi * np.outer(steps, np.fft.fftfreq(points)))
    transform = np.abs(shares @ waves) ** 2  # (places, frequencies)
    expected = (transform * np.cos(2 * np.pi * harmonic * places)[:, None]).mean(0)
    np.testing.assert_allclose(overlap(points, order, harmonic), expected, rtol=0, atol=1e-6)


@orders
@pytest.mark.parametrize("points", [8, 12, 30])
def test_deconvolution_undoes_the_splines_and_their_aliases(order: int, points: int) -> None:
    # Ŵ = sinc^p at the frequency and its aliases, summed one by one.
    frequency = np.fft.fftfreq(points)
    aliases = np.sinc(frequency + np.arange(-60, 61)[:, None]) ** (2 * order)
    expected = aliases[60] / aliases.sum(0) ** 2
    np.testing.assert_allclose(deconvolution(points, order), expected, rtol=1e-8)
    assert deconvolution(points, order)[0] == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize(
    ("at_least", "size"),
    [(0.3, 2), (2.0, 2), (2.1, 4), (7.0, 8), (13.9, 16), (16.1, 18), (97.0, 100), (1025.0, 1080)],
)
def test_mesh_sizes_are_even_without_large_prime_factors(at_least: float, size: int) -> None:
    assert smooth_size(at_least) == size


@orders
@kinds
def test_mesh_hardly_pulls_at_a_single_ion(kind: str, order: int) -> None:
    # The exact force is zero. What a mesh makes of it is corrected at its lowest harmonic.
    corrected, uncorrected = [], []
    for place in np.random.default_rng(1).random((8, 3)):
        atoms = Atoms("H", positions=[6 * place], cell=[6.0, 6.0, 6.0], pbc=PBC[kind])
        ion = Ions(atoms, float64([1.0]), float64([0.5]))
        settings = CoulombSettings(1e-2, "mesh", splitting=0.8, spline_order=order, mesh=(10,) * 3)
        graph = ion.graph(settings)
        if graph.coulomb.open_length is not None:  # the same spacing along open axes
            points = int(10 * np.ceil(float(graph.coulomb.open_length) / 6))
            mesh = [10 if periodic else points for periodic in PBC[kind]]
            graph = graph._replace(
                coulomb=graph.coulomb._replace(mesh=torch.tensor([[*mesh, order]]))
            )
        positions = graph.positions.requires_grad_()
        coulomb = CoulombSum(graph._replace(positions=positions), ion.widths)
        ((_, mesh),) = coulomb.meshes
        itself = 0.5 * (mesh.ripple * ion.charges**2).sum()
        energy = coulomb.energy(ion.charges).sum()
        for forces, total in ((corrected, energy), (uncorrected, energy + itself)):
            forces.append(torch.autograd.grad(total, positions, retain_graph=True)[0])
    assert rms(torch.cat(corrected)) < REMAINING_PULL[order] * rms(torch.cat(uncorrected))


@kinds
def test_mesh_interaction_is_symmetric(kind: str) -> None:
    ions = random_ions(1, PBC[kind], n_ions=6, net_charge=0.4)
    coulomb = ions.sum(CoulombSettings(1e-3, "mesh"))
    matrix = torch.stack([coulomb.potential(unit) for unit in torch.eye(6).double()])
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    other = torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(matrix @ other, coulomb.potential(other), rtol=0, atol=1e-12)


@kinds
@pytest.mark.parametrize("method", ["ewald", "mesh"])
def test_energy_is_half_the_charges_times_their_potential(kind: str, method: str) -> None:
    ions = random_ions(2, PBC[kind], n_ions=6, net_charge=0.4)
    coulomb = ions.sum(CoulombSettings(1e-3, method))
    expected = 0.5 * float(ions.charges @ coulomb.potential(ions.charges))
    assert float(coulomb.energy(ions.charges)) == pytest.approx(expected, abs=1e-12)


@kinds
@pytest.mark.parametrize("accuracy", [1e-2, 1e-4])
def test_forces_hardly_change_when_everything_moves_through_the_mesh(
    kind: str, accuracy: float
) -> None:
    ions = random_ions(3, PBC[kind], n_ions=12, net_charge=0.4)
    settings = CoulombSettings(accuracy, "mesh")
    moved = [
        ions.changed(positions=ions.atoms.positions + shift)
        for shift in ([0.0, 0.0, 0.0], [0.13, -0.37, 0.29], [7.7, 0.41, -3.3])
    ]
    # The errors of two places add up; what is lost of the sum of all forces is one of them.
    forces = [each.forces(settings) for each in moved]
    for other in forces[1:]:
        assert 0 < rms(other - forces[0]) < np.sqrt(2) * accuracy
    assert all(float(f.mean(0).norm()) < accuracy for f in forces)


@kinds
def test_ions_may_lie_outside_the_cell(kind: str) -> None:
    ions = random_ions(4, PBC[kind], n_ions=6)
    away = np.random.default_rng(4).integers(-3, 4, (6, 3)) * ions.atoms.pbc
    outside = ions.changed(positions=ions.atoms.positions + away @ ions.atoms.cell.array)
    settings = CoulombSettings(1e-3, "mesh")
    assert outside.energy(settings) == pytest.approx(ions.energy(settings), abs=1e-10)


def test_meshes_in_a_batch_give_what_they_give_alone() -> None:
    single = [random_ions(seed, pbc, n_ions=3 + seed) for seed, pbc in enumerate(PBC.values())]
    single.append(Ions(Atoms("H"), float64([1.0]), float64([0.5])))
    settings = [
        CoulombSettings(1e-4, method) for method in ("mesh", "ewald", "mesh", "mesh", "auto")
    ]
    graphs = [ions.graph(each) for ions, each in zip(single, settings, strict=True)]
    charges, widths = (
        torch.cat([getattr(ions, name) for ions in single]) for name in ("charges", "widths")
    )
    batch = CoulombSum(collate(graphs), widths)
    alone = [ions.sum(each) for ions, each in zip(single, settings, strict=True)]
    energies = torch.cat([c.energy(i.charges) for c, i in zip(alone, single, strict=True)])
    torch.testing.assert_close(batch.energy(charges), energies, rtol=0, atol=1e-11)
    potentials = torch.cat([c.potential(i.charges) for c, i in zip(alone, single, strict=True)])
    torch.testing.assert_close(batch.potential(charges), potentials, rtol=0, atol=1e-11)


def test_mesh_sum_says_that_it_has_no_matrix() -> None:
    with pytest.raises(ValueError, match="method='ewald'"):
        random_ions(5).sum(CoulombSettings(1e-3, "mesh")).matrix()
