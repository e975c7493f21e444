"""Parameters of calculators: checked, and in a form that JSON can hold."""

from collections.abc import Collection, Iterable
from typing import Any

from ase.calculators.calculator import InputError

from phicalc.checkpoint import resolve_device, resolve_dtype
from phicalc.compiled import Mode
from phicalc.electrostatics import CoulombSettings
from phicalc.graph.conditions import as_field, as_number
from phicalc.neighbors import ENGINES

#: Arguments of every ASE calculator's constructor, besides parameters.
ASE_ARGUMENTS = ("atoms", "directory", "label", "restart")


def checked(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters in a form that JSON can hold.

    Raises
    ------
    ase.calculators.calculator.InputError
        For impossible values.
    """
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
    return {
        **parameters,
        "dtype": dtype,
        "device": str(parameters["device"]),
        "total_charge": _number(parameters, "total_charge", "net charge in e"),
        "electrode_potential": _number(parameters, "electrode_potential", "V"),
        "external_field": None if field is None else as_field(field, "external_field"),
        "force_accuracy": _accuracy(parameters["force_accuracy"]),
        "compile": _switch(parameters, "compile", (True, False, "auto", "background")),
        "strict": _switch(parameters, "strict", (True, False)),
        "uncertainty": _switch(parameters, "uncertainty", (True, False)),
    }


def _number(parameters: dict[str, Any], name: str, meaning: str) -> float | None:
    """Return one finite number, if it was given."""
    value = parameters[name]
    return None if value is None else as_number(value, name, meaning)


def _accuracy(value: Any) -> float | None:
    """Return an accuracy of forces in eV/Å, if it was given."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"PhiCalculator: force_accuracy must be a number (eV/Å), got {value!r}"
        ) from error
    try:
        return CoulombSettings(number).force_accuracy
    except ValueError as error:
        raise InputError(f"PhiCalculator: {error}") from error


def _switch(parameters: dict[str, Any], name: str, choices: tuple[Mode, ...]) -> Mode:
    """Return one of the choices; numbers that equal True or False are none."""
    value = parameters[name]
    if isinstance(value, str | bool) and value in choices:
        return value  # type: ignore[return-value]  # it is one of the choices
    words = [repr(choice) for choice in choices]
    listed = f"{', '.join(words[:-1])} or {words[-1]}"
    raise InputError(f"PhiCalculator: {name} must be {listed}, got {value!r}")


def refuse_unknown(
    names: Iterable[str], known: Collection[str], parameters: Collection[str]
) -> None:
    """Refuse arguments that are not `known`; `parameters` are those that can be set.

    Raises
    ------
    ase.calculators.calculator.InputError
        Naming the arguments and those that exist.
    """
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(
            f"PhiCalculator has no parameters {', '.join(map(repr, unknown))} here; it has "
            f"{', '.join((*parameters, *ASE_ARGUMENTS))} "
            f"(the last {len(ASE_ARGUMENTS)} in the constructor only)"
        )
