"""What an ASE calculator returns: names, types, sums, errors, and files that hold it."""

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_properties,
)
from ase.io import read, write

from phicalc.testing.physics import assert_close

Make = Callable[[], Calculator]

#: Files in which ASE keeps results, with the digits that they keep.
_FILES = {"atoms.traj": 1e-12, "atoms.json": 1e-12, "atoms.extxyz": 1e-6}

#: Strength in V/Å of the field by which the dipole is measured.
_FIELD = 1e-3


def with_calculator(make: Make, atoms: Atoms) -> Atoms:
    """Return a copy of the structure with a new calculator."""
    atoms = atoms.copy()
    atoms.calc = make()
    return atoms


def results_of(atoms: Atoms, names: Collection[str] = all_properties) -> dict[str, Any]:
    """Return the results that the calculator has for this structure, by name."""
    found = {}
    for name in names:
        if name in atoms.calc.implemented_properties:
            try:
                found[name] = atoms.calc.get_property(name, atoms)
            except PropertyNotImplementedError:
                continue  # not for this structure
    return found


def compare_results(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Compare two sets of results."""
    assert set(found) == set(expected), f"has {sorted(found)}, expected {sorted(expected)}"
    for name, value in expected.items():
        assert_close(name, found[name], value, tolerance)


@contextmanager
def assert_undefined(what: str) -> Iterator[None]:
    """Check that asking for something raises ASE's error, and no other.

    Raises
    ------
    AssertionError
        If it gives a value or raises something else.
    """
    try:
        yield
    except PropertyNotImplementedError:
        return
    except Exception as error:
        message = f"{what} raises {type(error).__name__}, expected PropertyNotImplementedError"
        raise AssertionError(message) from error
    raise AssertionError(f"{what} gives a value, expected PropertyNotImplementedError")


def check_types(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that energies are floats, arrays float64 in ASE's shapes, and everything finite."""
    atoms = with_calculator(make, atoms)
    n_atoms = len(atoms)
    shapes = {
        "forces": (n_atoms, 3),
        "stress": (6,),
        "energies": (n_atoms,),
        "charges": (n_atoms,),
        "magmoms": (n_atoms,),
        "dipole": (3,),
    }
    for name, value in results_of(atoms).items():
        if name in ("energy", "free_energy"):
            assert isinstance(value, float), f"{name} is a {type(value).__name__}, expected float"
        elif name in shapes:
            kind = f"{getattr(value, 'dtype', type(value))} {np.shape(value)}"
            expected = f"float64 {shapes[name]}"
            assert kind == expected, f"{name} is {kind}, expected {expected}"
        assert np.all(np.isfinite(np.asarray(value, dtype=float))), f"{name} is not finite"


def check_names(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that results have ASE's names only: others break ``atoms.get_properties``."""
    atoms = with_calculator(make, atoms)
    results_of(atoms)
    strange = set(getattr(atoms.calc, "results", {})) - set(all_properties)
    assert not strange, f"results hold names that ASE does not know: {sorted(strange)}"
    assert "energy" in atoms.calc.implemented_properties, "energy is not implemented"


def check_free_energy(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that there is a free energy, which some of ASE's functions take for granted."""
    atoms = with_calculator(make, atoms)
    known = "free_energy" in atoms.calc.implemented_properties
    assert known, "free_energy is not implemented: without entropy it is the energy"
    atoms.get_potential_energy(force_consistent=True)


def check_sums(make: Make, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that the energies of atoms sum to the energy, and their stresses to the stress."""
    results = results_of(with_calculator(make, atoms))
    for parts, whole in (("energies", "energy"), ("stresses", "stress")):
        if parts in results and whole in results:
            total = np.sum(results[parts], axis=0)
            assert_close(f"sum of {parts}", total, results[whole], tolerance)


def check_missing_properties(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that other properties raise PropertyNotImplementedError."""
    atoms = with_calculator(make, atoms)
    for name in (*all_properties, "no_such_property"):
        if name not in atoms.calc.implemented_properties:
            with assert_undefined(f"{name}, which is not implemented,"):
                atoms.calc.get_property(name, atoms)


def check_no_stress_of_molecules(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that a structure without a cell has no stress, even after one that had it."""
    isolated = with_calculator(make, atoms)
    if "stress" not in isolated.calc.implemented_properties:
        return
    if atoms.pbc.all():
        isolated.get_stress()
    isolated.pbc = False
    isolated.cell = None
    isolated.get_potential_energy()
    with assert_undefined("the stress of a structure without a cell"):
        isolated.get_stress()


def check_one_atom(make: Make, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that a lone atom has an energy, and no force."""
    alone = with_calculator(make, atoms[:1])
    alone.pbc = False
    alone.cell = None
    energy, forces = alone.get_potential_energy(), alone.get_forces()
    assert np.isfinite(energy), f"the energy of a lone atom is {energy}"
    assert forces.shape == (1, 3), f"the forces of a lone atom have shape {forces.shape}"
    assert_close("force on a lone atom", forces, np.zeros((1, 3)), tolerance)


def check_dipole(make: Make, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that the dipole turns with an isolated structure, in e Å and from − to +.

    It may differ from the sum over charges by dipoles of atoms, not by the factor 4.8 of the debye,
    nor by its sign. A shift moves it by charge × shift, or not at all if it is taken about a center
    that moves too.
    """
    results = results_of(with_calculator(make, atoms))
    if "dipole" not in results or atoms.pbc.any():
        return
    dipole, charges = results["dipole"], results.get("charges")
    turned, moved = atoms.copy(), atoms.copy()
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    turned.positions = atoms.positions @ rotation
    found = with_calculator(make, turned).get_dipole_moment()
    charge = float(atoms.info.get("charge", 0) if charges is None else charges.sum())
    if abs(charge) < 1e-6:
        assert_close("dipole of the turned structure", found, dipole @ rotation, tolerance)
    shift = np.array([1.0, 2.0, 3.0])
    moved.positions += shift
    change = with_calculator(make, moved).get_dipole_moment() - dipole
    if np.abs(change).max() > tolerance:
        assert_close("change of the dipole by a shift", change, charge * shift, tolerance)
    if charges is not None and abs(charge) < 1e-6:
        of_charges = charges @ atoms.positions
        ratio = float(dipole @ of_charges) / max(float(of_charges @ of_charges), 1e-30)
        small = np.linalg.norm(of_charges) < 1e-3
        assert small or 0.4 < ratio < 2.5, (
            f"dipole is {ratio:.3g} times that of the charges: is it in e Å, from − to +?"
        )


def check_field(make: Make, atoms: Atoms, tolerance: float = 1e-6) -> None:
    """Check that the dipole is ``−∂E/∂field``, if ``info["external_field"]`` (V/Å) is known.

    For neutral, isolated structures: others have no energy in a field without an origin.
    """
    results = results_of(with_calculator(make, atoms))
    charges = results.get("charges", np.array(atoms.info.get("charge", 0.0)))
    charged = abs(float(charges.sum())) > 1e-6
    if "dipole" not in results or atoms.pbc.any() or charged:
        return
    for axis in range(3):
        energies = []
        for sign in (1, -1):
            inside = atoms.copy()
            inside.info["external_field"] = sign * _FIELD * np.eye(3)[axis]
            energies.append(with_calculator(make, inside).get_potential_energy())
        if energies[0] == energies[1] == results["energy"]:
            return  # fields are unknown here
        found = -(energies[0] - energies[1]) / (2 * _FIELD)
        # The cubic term remains, and the rounding of the energies.
        error = max(tolerance, 1e-12 * abs(results["energy"]) / _FIELD, 1e-5)
        assert_close(f"dipole {'xyz'[axis]}", results["dipole"][axis], found, error)


def check_files(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that results survive in ASE's trajectories, extended XYZ and JSON.

    Raises
    ------
    AssertionError
        If a file cannot be written and read, or holds other numbers.
    """
    atoms = with_calculator(make, atoms)
    results = results_of(atoms)
    names = [name for name in ("energy", "forces", "stress") if name in results]
    with tempfile.TemporaryDirectory() as folder:
        for file, digits in _FILES.items():
            path = Path(folder) / file
            try:
                write(path, atoms)
                back: Any = read(path)
            except Exception as error:  # whatever the writers stumble over
                raise AssertionError(f"ASE cannot write {file}: {error!r}") from error
            for name in names:
                value = back.calc.get_property(name, back)
                assert_close(f"{name} in {file}", value, results[name], digits)
