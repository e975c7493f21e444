"""Parameters of the calculator: checked, in a form that JSON can hold, and the model they name."""

import os
from collections.abc import Collection, Iterable, Sequence
from copy import deepcopy
from typing import Any

from ase import Atoms
from ase.calculators.calculator import InputError, PropertyNotImplementedError

from phicalc.card import ModelCard
from phicalc.checkpoint import load_model, model_digest, resolve_device, resolve_dtype
from phicalc.compiled import Mode
from phicalc.electrostatics import CoulombSettings
from phicalc.inference.conditions import as_field, as_number
from phicalc.neighbors import ENGINES
from phicalc.potential import Potential

#: What the constructor takes besides parameters, as every ASE calculator.
ASE_ARGUMENTS = ("atoms", "directory", "label", "restart")


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
    return f"potential in memory, sha256 {model_digest(source)}"


def refuse_unknown(
    names: Iterable[str], known: Collection[str], parameters: Collection[str]
) -> None:
    """Refuse arguments that are not `known`; `parameters` are those that can be set."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(
            f"PhiCalculator has no parameters {', '.join(map(repr, unknown))} here; it has "
            f"{', '.join((*parameters, *ASE_ARGUMENTS))} "
            f"(the last {len(ASE_ARGUMENTS)} in the constructor only)"
        )


def given_or_last(atoms: Atoms | None, last: Atoms | None) -> Atoms:
    """Return the structure to compute: the one given, or that of the last calculation."""
    chosen = last if atoms is None else atoms
    if chosen is None:
        raise InputError("no structure yet: pass atoms, or compute an energy first")
    return chosen


def refuse_undefined(properties: Sequence[str], atoms: Atoms) -> None:
    """Raise for properties that do not exist under these boundary conditions."""
    if "stress" in properties and not atoms.pbc.all():
        raise PropertyNotImplementedError(
            f"stress is defined for pbc=[True, True, True] only, got pbc={atoms.pbc.tolist()}"
        )
    if "dipole" in properties and atoms.pbc.any():
        raise PropertyNotImplementedError(
            "the dipole of a periodic structure depends on the choice of the cell: it is given for "
            f"pbc=[False, False, False] only, got pbc={atoms.pbc.tolist()}"
        )


def load(
    source: str | os.PathLike[str] | Potential, device: str, dtype: str
) -> tuple[Potential, ModelCard | None]:
    """Load a model, or copy the potential given, for inference."""
    if not isinstance(source, Potential):
        potential, card = load_model(source, device=device, dtype=dtype)
        return potential.requires_grad_(False), card
    potential = deepcopy(source).to(device=resolve_device(device), dtype=resolve_dtype(dtype))
    return potential.eval().requires_grad_(False), None
