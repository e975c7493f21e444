"""Parameters of the calculator: checked, and in a form that JSON can hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError

from phicalc.checkpoint import resolve_device, resolve_dtype
from phicalc.electrostatics import CoulombSettings
from phicalc.evaluation import Environment
from phicalc.neighbors import ENGINES


def checked(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters in a form that JSON can hold; refuses impossible values."""
    try:
        dtype = str(resolve_dtype(parameters["dtype"])).removeprefix("torch.")
        resolve_device(parameters["device"])
    except ValueError as error:
        raise InputError(f"PhiCalculator: {error}") from error
    if parameters["neighbors"] not in ("auto", *ENGINES):
        raise InputError(
            f"PhiCalculator: neighbors must be 'auto' or one of {', '.join(ENGINES)}, "
            f"got {parameters['neighbors']!r}"
        )
    charge = parameters["total_charge"]
    charge = None if charge is None else as_charge(charge, "total_charge")
    field = parameters["external_field"]
    accuracy = parameters["force_accuracy"]
    try:
        accuracy = None if accuracy is None else CoulombSettings(float(accuracy)).force_accuracy
    except (TypeError, ValueError) as error:
        raise InputError(f"PhiCalculator: {error}") from error
    return {
        **parameters,
        "dtype": dtype,
        "device": str(parameters["device"]),
        "total_charge": charge,
        "external_field": None if field is None else as_field(field, "external_field"),
        "force_accuracy": accuracy,
    }


def as_charge(value: Any, name: str) -> float:
    """Total charge as a finite float."""
    array = _as_array(value)
    if array.shape != () or array.dtype.kind not in "iuf" or not np.isfinite(array):
        raise InputError(f"{name} must be one finite number (net charge in e), got {value!r}")
    return float(array)


def as_field(value: Any, name: str) -> list[float]:
    """Electric field as three finite floats, in a form that JSON can hold."""
    array = _as_array(value)
    if array.shape != (3,) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise InputError(f"{name} must be three finite numbers (V/Å), got {value!r}")
    return [float(component) for component in array]


def _as_array(value: Any) -> np.ndarray:
    """Array of whatever was given; of objects, where numpy cannot make numbers of it."""
    try:
        return np.asarray(value)
    except ValueError:  # nested lists of unequal lengths
        return np.empty(0, dtype=object)


def environment_of(atoms: Atoms, parameters: Mapping[str, Any]) -> Environment:
    """Total charge and field by precedence: parameters, ``atoms.info``, nothing."""
    charge, field = parameters["total_charge"], parameters["external_field"]
    if charge is None:
        charge = as_charge(atoms.info.get("charge", 0.0), 'atoms.info["charge"]')
    if field is None and atoms.info.get("external_field") is not None:
        field = as_field(atoms.info["external_field"], 'atoms.info["external_field"]')
    return Environment(charge, None if field is None else (field[0], field[1], field[2]))
