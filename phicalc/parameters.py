"""Parameters of the calculator: checked, and in a form that JSON can hold."""

import os
from typing import Any

from ase.calculators.calculator import InputError

from phicalc.checkpoint import resolve_device, resolve_dtype, weights_digest
from phicalc.compiled import Mode
from phicalc.electrostatics import CoulombSettings
from phicalc.environment import as_field, as_number
from phicalc.neighbors import ENGINES
from phicalc.potential import Potential


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
        "total_charge": _number(parameters, "total_charge", "net charge in e"),
        "electrode_potential": _number(parameters, "electrode_potential", "V"),
        "external_field": None if field is None else as_field(field, "external_field"),
        "force_accuracy": accuracy,
        "compile": _compile_mode(parameters["compile"]),
    }


def _number(parameters: dict[str, Any], name: str, meaning: str) -> float | None:
    """One finite number, if it was given."""
    value = parameters[name]
    return None if value is None else as_number(value, name, meaning)


def _compile_mode(value: Any) -> Mode:
    """Check that this is True, False or "auto"."""
    if value is True or value is False or value == "auto":
        return value  # type: ignore[no-any-return]  # it is one of the three
    raise InputError(f"PhiCalculator: compile must be True, False or 'auto', got {value!r}")


def record_of_model(source: str | os.PathLike[str] | Potential) -> str:
    """Model parameter as it is recorded in trajectories: text only."""
    if not isinstance(source, Potential):
        return os.fspath(source)
    devices = sorted({str(parameter.device) for parameter in source.parameters()})
    if len(devices) > 1:
        raise InputError(
            f"the parameters of the potential are spread over {', '.join(devices)}: move it to "
            "one device first, potential.to(device)"
        )
    return f"potential in memory, sha256 {weights_digest(source)}"
