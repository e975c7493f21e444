"""The physics contract: finite differences, symmetries, supercells and charges.

Every check is called as ``check(evaluate, atoms, tolerance=…)``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from jaxtyping import Float


class Evaluation(NamedTuple):
    """Everything a potential says about one structure, in eV, Å and e."""

    energy: float
    """In eV."""
    forces: Float[np.ndarray, "n_atoms 3"]
    """In eV/Å."""
    stress: Float[np.ndarray, "6"] | None = None
    """In eV/Å³ and Voigt order, tension positive; None for structures without a three-dimensional
    cell."""
    charges: Float[np.ndarray, " n_atoms"] | None = None
    """In e."""


Evaluate = Callable[[Atoms], Evaluation]


def from_calculator(calculator: Calculator) -> Evaluate:
    """Evaluate structures with an ASE calculator; by the free energy, if it knows one."""
    properties = calculator.implemented_properties
    force_consistent = "free_energy" in properties

    def evaluate(atoms: Atoms) -> Evaluation:
        atoms = atoms.copy()
        atoms.calc = calculator
        stress, charges = None, None
        if atoms.pbc.all() and "stress" in properties:
            stress = atoms.get_stress(voigt=False)
        if "charges" in properties:
            try:
                charges = atoms.get_charges()
            except PropertyNotImplementedError:
                charges = None
        energy = atoms.get_potential_energy(force_consistent=force_consistent)
        return Evaluation(energy, atoms.get_forces(), stress, charges)

    return evaluate


def check_permutation(evaluate: Evaluate, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that the order of the atoms has no meaning."""
    order = np.arange(len(atoms))[::-1]
    permuted = atoms[order]
    permuted.info = dict(atoms.info)
    before, after = evaluate(atoms), evaluate(permuted)
    _compare_scalars(before, after, tolerance)
    assert_close("forces", after.forces, before.forces[order], tolerance)
    if before.charges is not None:
        assert_close("charges", after.charges, before.charges[order], tolerance)


def check_rotation(evaluate: Evaluate, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that forces and stress turn and mirror with the structure; nothing else changes."""
    before = evaluate(atoms)
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    for matrix in (rotation * np.linalg.det(rotation), -rotation * np.linalg.det(rotation)):
        turned = atoms.copy()
        turned.set_cell(atoms.cell @ matrix)
        turned.positions = atoms.positions @ matrix
        after = evaluate(turned)
        assert_close("energy", after.energy, before.energy, tolerance)
        assert_close("forces", after.forces, before.forces @ matrix, tolerance)
        if before.stress is not None:
            assert_close("stress", after.stress, matrix.T @ before.stress @ matrix, tolerance)
        if before.charges is not None:
            assert_close("charges", after.charges, before.charges, tolerance)


def check_translation(evaluate: Evaluate, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that neither the origin nor the image of an atom that is listed has a meaning."""
    before = evaluate(atoms)
    moved = atoms.copy()
    moved.positions += [3.21, -1.7, 12.345]
    if atoms.pbc.any():
        images = np.random.default_rng(3).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
        moved.positions += images @ np.array(atoms.cell)
    _compare(before, evaluate(moved), tolerance)


def check_left_handed_cell(evaluate: Evaluate, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that swapping two lattice vectors describes the same crystal."""
    if not atoms.pbc.all():
        return
    swapped = atoms.copy()
    swapped.set_cell(np.array(atoms.cell)[[1, 0, 2]])
    _compare(evaluate(atoms), evaluate(swapped), tolerance)


def check_supercell(evaluate: Evaluate, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that a repeated cell has the energy of its parts and the same forces and charges."""
    if not atoms.pbc.all():
        return
    repeated = atoms.repeat((1, 2, 1))
    repeated.info = dict(atoms.info)
    if "charge" in atoms.info:
        repeated.info["charge"] = 2 * atoms.info["charge"]
    one, two = evaluate(atoms), evaluate(repeated)
    assert_close("energy", two.energy / 2, one.energy, tolerance)
    assert_close("forces", two.forces, np.tile(one.forces, (2, 1)), tolerance)
    if one.stress is not None:
        assert_close("stress", two.stress, one.stress, tolerance)
    if one.charges is not None:
        assert_close("charges", two.charges, np.tile(one.charges, 2), tolerance)


def check_forces(
    evaluate: Evaluate, atoms: Atoms, tolerance: float = 1e-6, step: float = 2e-5
) -> None:
    """Check forces against central differences of fourth order along a random direction.

    `step` is in Å.
    """
    direction = np.random.default_rng(4).normal(size=(len(atoms), 3))

    def energy(size: float) -> float:
        moved = atoms.copy()
        moved.positions += size * direction
        return evaluate(moved).energy

    expected = -_derivative(energy, step)
    work = float(np.sum(evaluate(atoms).forces * direction))
    _assert_relative("forces along a random direction", work, expected, tolerance)


def check_stress(
    evaluate: Evaluate, atoms: Atoms, tolerance: float = 1e-6, step: float = 1e-5
) -> None:
    """Check the stress against central differences of the energy by a random symmetric strain."""
    if not atoms.pbc.all():
        return
    strain = np.random.default_rng(5).normal(size=(3, 3))
    strain = (strain + strain.T) / 2

    def energy(size: float) -> float:
        strained = atoms.copy()
        strained.set_cell(atoms.cell @ (np.eye(3) + size * strain), scale_atoms=True)
        return evaluate(strained).energy

    expected = _derivative(energy, step) / atoms.get_volume()
    stress = evaluate(atoms).stress
    assert stress is not None, "no stress for a three-dimensional cell"
    _assert_relative("stress along a random strain", np.sum(stress * strain), expected, tolerance)


def check_net_force(evaluate: Evaluate, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that forces sum to zero, and so does the torque of an isolated structure."""
    forces = evaluate(atoms).forces
    scale = max(1.0, float(np.abs(forces).max(initial=0.0)))
    assert_close("net force", forces.sum(axis=0) / scale, np.zeros(3), tolerance)
    if not atoms.pbc.any():
        torque = np.cross(atoms.positions, forces).sum(axis=0)
        assert_close("net torque", torque / scale, np.zeros(3), tolerance)


def check_total_charge(evaluate: Evaluate, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that charges sum to the total charge (``info["charge"]``, 0 by default)."""
    charges = evaluate(atoms).charges
    if charges is not None:
        assert_close("sum of charges", charges.sum(), atoms.info.get("charge", 0), tolerance)


#: All checks, each called as ``check(evaluate, atoms, tolerance=…)``.
CONTRACT: tuple[Callable[..., None], ...] = (
    check_permutation,
    check_rotation,
    check_translation,
    check_left_handed_cell,
    check_supercell,
    check_forces,
    check_stress,
    check_net_force,
    check_total_charge,
)


def _derivative(function: Callable[[float], float], step: float) -> float:
    """First derivative at 0 by central differences of fourth order."""
    near = function(step) - function(-step)
    far = function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def _compare(before: Evaluation, after: Evaluation, tolerance: float) -> None:
    """Compare two evaluations of what should be the same structure."""
    _compare_scalars(before, after, tolerance)
    assert_close("forces", after.forces, before.forces, tolerance)
    if before.charges is not None:
        assert_close("charges", after.charges, before.charges, tolerance)


def _compare_scalars(before: Evaluation, after: Evaluation, tolerance: float) -> None:
    """Compare what does not belong to single atoms."""
    assert_close("energy", after.energy, before.energy, tolerance)
    if before.stress is not None:
        assert_close("stress", after.stress, before.stress, tolerance)


def assert_close(name: str, found: Any, expected: Any, tolerance: float) -> None:
    """Deviation within `tolerance`, absolute and relative to the largest expected number."""
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    deviation = float(np.max(np.abs(np.asarray(found) - expected), initial=0.0))
    assert deviation <= tolerance * scale, f"{name} deviates by {deviation:.3g} (of {scale:.3g})"


def _assert_relative(name: str, found: float, expected: float, tolerance: float) -> None:
    """Relative deviation within `tolerance`."""
    deviation = abs(found - expected)
    assert deviation <= tolerance * abs(expected), (
        f"{name}: {found:.10g}, by finite differences {expected:.10g}"
    )
