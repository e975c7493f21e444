"""The report on a sum: its figures by another way, every method, a text that can be read."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc.derivatives import deform
from phicalc.electrostatics import CoulombSettings, CoulombSum, SumReport, plan_coulomb
from phicalc.electrostatics.charges.elements import covalent_radius
from phicalc.electrostatics.sums.error_report import report
from phicalc.graph import from_ase

from .ions import PBC

METHODS = [
    ("molecule", "direct"),
    ("molecule", "ewald"),
    ("molecule", "mesh"),
    ("wire", "ewald"),
    ("wire", "mesh"),
    ("slab", "ewald"),
    ("slab", "mesh"),
    ("crystal", "ewald"),
    ("crystal", "mesh"),
]


def salt(kind: str = "crystal") -> Atoms:
    """Rattled rocksalt, 16 atoms, periodic along some axes."""
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat(2)
    atoms.rattle(0.15, seed=5)
    atoms.pbc = PBC[kind]
    return atoms


def ions(atoms: Atoms) -> np.ndarray:
    return np.where(atoms.numbers == 11, 0.9, -0.9)


def energy_and_forces(
    atoms: Atoms, charges: np.ndarray, widths: np.ndarray, settings: CoulombSettings
) -> tuple[float, np.ndarray]:
    """Sum by the potential at each atom, not by the energy; forces by autograd."""
    smearing = torch.tensor(widths, dtype=torch.float64)
    q = torch.tensor(charges, dtype=torch.float64)
    graph = plan_coulomb(from_ase(atoms, 1.0), smearing, settings, q)
    positions = graph.positions.clone().requires_grad_()
    potential = CoulombSum(graph._replace(positions=positions), smearing).potential(q)
    energy = 0.5 * (q * potential).sum()
    (gradient,) = torch.autograd.grad(energy, positions)
    return float(energy.detach()), -gradient.numpy()


@pytest.mark.parametrize(("kind", "method"), METHODS)
def test_figures_are_those_of_the_sums(kind: str, method: str) -> None:
    atoms, widths = salt(kind), np.linspace(0.5, 0.9, 16)
    settings = CoulombSettings(1e-3, method)
    found = report(atoms, ions(atoms), widths, settings)
    exact_energy, exact_forces = energy_and_forces(
        atoms, ions(atoms), widths, CoulombSettings(1e-9, "ewald")
    )
    energy, forces = energy_and_forces(atoms, ions(atoms), widths, settings)
    assert found.parameters.method == method
    assert found.force_accuracy == 1e-3
    assert found.energy == pytest.approx(energy, rel=1e-10)
    assert found.energy_error == pytest.approx(energy - exact_energy, rel=1e-2, abs=1e-5)
    error = forces - exact_forces
    rms = np.sqrt(np.square(error).sum(1).mean())
    assert found.force_error == pytest.approx(rms, rel=0.05, abs=1e-6)
    assert found.max_force_error == pytest.approx(np.abs(error).max(), rel=0.05, abs=1e-6)
    assert found.force_error < settings.force_accuracy
    assert all(0 <= e <= settings.force_accuracy for e in found.estimated.values())


@pytest.mark.parametrize(("kind", "method"), METHODS)
def test_counts_are_those_of_the_plan(kind: str, method: str) -> None:
    atoms = salt(kind)
    found = report(atoms, ions(atoms), 0.4, CoulombSettings(1e-3, method))
    p = found.parameters
    if method == "direct":
        assert (found.n_pairs, found.n_waves, found.estimated) == (16 * 15 // 2, 0, {})
        return
    edges = from_ase(atoms, p.real_cutoff).edge_index.shape[1]  # both directions of every pair
    assert found.n_pairs == edges // 2
    if method == "mesh":
        assert found.n_waves == np.prod(p.mesh)
    else:
        assert found.n_waves > 10
        assert p.mesh == (0, 0, 0)
    assert (p.open_length > 0) == (kind != "crystal")


def test_by_default_charges_are_those_of_the_calculator_and_widths_covalent_radii() -> None:
    atoms = salt()
    atoms.calc = SinglePointCalculator(atoms, charges=ions(atoms))
    radii = np.array([covalent_radius(symbol) for symbol in atoms.symbols])
    assert report(atoms) == report(atoms, ions(atoms), radii, CoulombSettings())


def test_errors_that_the_user_asks_for_are_reported() -> None:
    atoms = salt()
    good = report(atoms, ions(atoms), 0.5)
    bad = report(atoms, ions(atoms), 0.5, CoulombSettings(splitting=0.4, real_cutoff=4.0))
    assert good.force_error < good.force_accuracy < 0.1 * bad.force_error
    assert bad.estimated["pairs"] > bad.force_accuracy
    exact, _ = energy_and_forces(atoms, ions(atoms), np.full(16, 0.5), CoulombSettings(1e-9))
    assert bad.energy - bad.energy_error == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("total", [1.0, -16.0])
def test_charged_crystals_have_a_report(total: float) -> None:
    found = report(salt(), ions(salt()) + total / 16, 0.6, CoulombSettings(1e-4))
    assert found.force_error < 1e-4


def test_lone_atom() -> None:
    found = report(Atoms("O"), np.array([1.0]), 0.8)
    assert found.parameters.method == "direct"
    assert (found.n_pairs, found.force_error, found.energy_error) == (0, 0.0, 0.0)
    assert found.energy > 0
    periodic = report(Atoms("O", cell=[5, 5, 5], pbc=True), np.array([1.0]), 0.8)
    assert periodic.force_error < 1e-10


def stress(atoms: Atoms, charges: np.ndarray, widths: np.ndarray, settings: CoulombSettings):
    """Differentiate the energy of a strained graph, from the potential at each atom."""
    smearing, q = (torch.tensor(x, dtype=torch.float64) for x in (widths, charges))
    graph = plan_coulomb(from_ase(atoms, 1.0), smearing, settings, q)
    strain = torch.zeros_like(graph.cell).requires_grad_()
    energy = 0.5 * (q * CoulombSum(deform(graph, strain), smearing).potential(q)).sum()
    return torch.autograd.grad(energy, strain)[0][0].numpy() / atoms.get_volume()


@pytest.mark.parametrize("method", ["ewald", "mesh"])
def test_error_of_the_stress_is_that_of_the_sums(method: str) -> None:
    atoms, widths, settings = salt(), np.linspace(0.5, 0.9, 16), CoulombSettings(1e-2, method)
    found = report(atoms, ions(atoms), widths, settings)
    exact = CoulombSettings(1e-9, "ewald")
    errors = [stress(atoms, ions(atoms), widths, each) for each in (settings, exact)]
    assert found.stress_error == pytest.approx(np.abs(errors[0] - errors[1]).max(), rel=0.05)
    assert found.stress_error > 1e-6
    assert f"stress error: largest {found.stress_error:.2e} eV/Å³" in str(found)


def test_stress_of_open_structures_has_no_error() -> None:
    found = report(salt("slab"), ions(salt("slab")), 0.5)
    assert found.stress_error is None
    assert "stress" not in str(found)


def test_no_charges_no_errors() -> None:
    found = report(salt(), np.zeros(16), 0.6)
    assert (found.energy, found.force_error, found.energy_error) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("charges", "widths", "message"),
    [
        (np.array([1.0, np.nan, -1.0]), 0.5, "charges must be finite"),
        (np.array([1.0, np.inf, -1.0]), 0.5, "charges must be finite"),
        (np.zeros(3), 0.0, "smearing must be positive"),
        (np.zeros(3), np.array([0.5, -0.5, 0.5]), "smearing must be positive"),
        (np.zeros(3), np.nan, "smearing must be positive"),
    ],
)
def test_nonsense_is_refused(charges: np.ndarray, widths: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report(molecule("H2O"), charges, widths)


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one atom"):
        report(Atoms(), np.zeros(0), 0.5)


def _text(kind: str, method: str) -> tuple[SumReport, str]:
    found = report(salt(kind), ions(salt(kind)), 0.6, CoulombSettings(1e-3, method))
    return found, str(found)


@pytest.mark.parametrize(("kind", "method"), METHODS)
def test_text_says_it_all_in_short_lines(kind: str, method: str) -> None:
    found, text = _text(kind, method)
    p, lines = found.parameters, text.split("\n")
    assert max(len(line) for line in lines) <= 100
    assert all(line == line.strip() and line for line in lines)
    assert "nan" not in text
    assert "tensor" not in text
    assert lines[0].startswith(f"method {method}: {found.n_pairs} pairs, {found.n_waves} ")
    assert ("real-space cutoff" in text) == (method != "direct")
    assert ("k cutoff" in text) == (method == "ewald")
    assert (f"splines of order {p.spline_order}" in text) == (method == "mesh")
    assert ("along open axes" in text) == (p.open_length > 0)
    assert "asked for 1.00e-03 eV/Å" in text
    assert text.count("estimated force error") == len(found.estimated)
    energy = re.search(r"^energy (-?\d+\.\d+) eV", lines[-1])
    assert energy is not None
    assert float(energy[1]) == pytest.approx(found.energy, abs=1e-6)
