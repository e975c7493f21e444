"""Labels of one structure, under phicalc's conventions."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from jaxtyping import Float64

from phicalc.labelling.calculators import CalculatorSpec
from phicalc.structures import center_of_mass

#: What is taken over from a calculator, and the unit of it.
#: (the stress first: a calculator that was asked for it computes all the rest at the same time)
UNITS = {
    "stress": "eV/Å³, (1/V) dE/dε, tension positive; cells periodic in three directions only",
    "energy": "eV; the free energy where a calculator has one: forces are its derivatives",
    "forces": "eV/Å",
    "charges": "e",
    "dipole": "e Å, about the centre of mass (standard masses); structures without cell only",
}


def label_structure(atoms: Atoms, spec: CalculatorSpec, max_force: float) -> dict[str, Any]:
    """Labels of a structure as plain lists and numbers, under the names of `UNITS`.

    The structure's calculator is used if it has one (whose results may be there already).

    Raises
    ------
    ArithmeticError
        If a label is not finite, or a force larger than `max_force` in eV/Å.
    ValueError
        If a label has another shape than ASE gives it.
    """
    prepared = atoms
    if atoms.calc is None:
        prepared = spec.prepare(atoms)
        prepared.calc = spec.make(prepared)
    calculator: Calculator = prepared.calc
    found = {
        name: _shaped(name, calculator.get_property(name, prepared), len(atoms))
        for name in defined_labels(prepared, calculator)
    }
    if "free_energy" in calculator.results:
        found["energy"] = _shaped("energy", calculator.results["free_energy"], len(atoms))
    bad = [name for name, value in found.items() if not np.isfinite(value).all()]
    if bad:
        raise ArithmeticError(f"{', '.join(bad)} not finite")
    largest = float(np.linalg.norm(found["forces"], axis=1).max())
    if largest > max_force:
        raise ArithmeticError(f"a force of {largest:.1f} eV/Å, more than {max_force:g}")
    if "dipole" in found and spec.dipole_origin == "coordinates":
        found["dipole"] -= atoms.info["charge"] * center_of_mass(atoms)
    return {name: value.tolist() for name, value in found.items()}


def _shaped(name: str, value: object, n_atoms: int) -> Float64[np.ndarray, "..."]:
    """Return a label with the shape that it has in ASE; one number may stand in brackets."""
    shapes = {
        "energy": (), "forces": (n_atoms, 3), "stress": (6,), "charges": (n_atoms,), "dipole": (3,)
    }  # fmt: skip
    array, shape = np.asarray(value, dtype=float), shapes[name]
    if array.shape != shape and not (array.size == 1 and shape in ((), (1,))):
        raise ValueError(
            f"{name} of {n_atoms} atoms have the shape {array.shape}, and not {shape} as in ASE"
        )
    return array.reshape(shape)


def defined_labels(atoms: Atoms, calculator: Calculator) -> list[str]:
    """Labels that the calculator offers and that mean something for these boundary conditions.

    Raises
    ------
    ValueError
        If it offers no energies or no forces.
    """
    missing = {"energy", "forces"} - set(calculator.implemented_properties)
    if missing:
        raise ValueError(
            f"{type(calculator).__name__} gives no {' and no '.join(sorted(missing))}: labels need "
            "a calculator with both"
        )
    undefined = set() if atoms.pbc.all() else {"stress"}
    undefined |= {"dipole"} if atoms.pbc.any() else set()
    offered = set(calculator.implemented_properties) - undefined
    return [name for name in UNITS if name in offered]


def with_labels(atoms: Atoms, labels: dict[str, Any]) -> Atoms:
    """Copy a structure, with these labels and no older ones."""
    copy = atoms.copy()
    copy.set_constraint()
    for name in UNITS:
        copy.info.pop(name, None)
        copy.arrays.pop(name, None)
    for name in ("initial_magmoms", "initial_charges", "momenta"):
        copy.arrays.pop(name, None)
    values = {name: np.asarray(value) for name, value in labels.items()}
    copy.calc = SinglePointCalculator(copy, **{**values, "energy": float(labels["energy"])})
    return copy
