"""The tests of ``pytest --ase-calculator=package:Class``; their options are in `pytest_phicalc`."""

import json
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any, NamedTuple

import pytest
from ase import Atoms
from ase.calculators.calculator import (
    CalculatorSetupError,
    InputError,
    PropertyNotImplementedError,
)
from ase.io import read

from phicalc.testing import ASE_CONTRACT, CONTRACT, results
from phicalc.testing.generators import structures_of
from phicalc.testing.physics import Evaluate, check_forces, check_stress, from_calculator
from phicalc.testing.results import Make, with_calculator

#: What a calculator may answer to a structure that it was not made for.
REFUSALS = (CalculatorSetupError, InputError, NotImplementedError, PropertyNotImplementedError)


class Precision(NamedTuple):
    """How exact a calculator is taken to be."""

    rounding: float
    """Largest deviation of equal things, relative to the larger of 1 and the largest number."""
    derivative: float
    """Largest relative deviation from finite differences."""
    step: float
    """Of finite differences, in Å; of strains a tenth."""


PRECISIONS = {"double": Precision(1e-8, 1e-4, 1e-4), "single": Precision(1e-4, 2e-2, 5e-3)}


@cache
def structures(config: pytest.Config) -> dict[str, Atoms]:
    """Structures of the options, by name.

    Raises
    ------
    pytest.UsageError
        If the file cannot be read, there are no structures of these elements, or ``atoms.info``
        is not given as a JSON object.
    """
    file, elements = config.getoption("ase_structures"), config.getoption("ase_elements")
    info = _json(config, "ase_info")
    try:
        if file:
            frames = read(file, ":")
            found = {f"{n}-{atoms.get_chemical_formula()}": atoms for n, atoms in enumerate(frames)}
        else:
            found = structures_of((elements or "").split(","))
    except (OSError, ValueError) as error:
        raise pytest.UsageError(
            f"give --ase-structures=FILE or --ase-elements=Cu,Au: {error}"
        ) from error
    for atoms in found.values():
        atoms.calc = None
        atoms.info = dict(info)
    return found


def _json(config: pytest.Config, option: str) -> dict[str, Any]:
    """Value of an option that holds a JSON object."""
    text = config.getoption(option)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise pytest.UsageError(f"{option} must be JSON, got {text!r}: {error}") from error
    if not isinstance(value, dict):
        raise pytest.UsageError(f"{option} must be a JSON object, got {text!r}")
    return value


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every check on every structure."""
    if "structure" in metafunc.fixturenames:
        found = structures(metafunc.config)
        metafunc.parametrize("structure", list(found.values()), ids=list(found))


@pytest.fixture(scope="session")
def make(pytestconfig: pytest.Config) -> Make:
    """Make new calculators as the options say.

    Raises
    ------
    pytest.UsageError
        If the class cannot be imported, or its arguments are not a JSON object.
    """
    name = pytestconfig.getoption("ase_calculator")
    module, _, attribute = name.partition(":")
    try:
        constructor = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(
            f"--ase-calculator must be package.module:Class, got {name!r}: {error}"
        ) from error
    return partial(constructor, **_json(pytestconfig, "ase_calculator_args"))


@pytest.fixture(scope="session")
def evaluate(make: Make) -> Evaluate:
    """One calculator for all structures."""
    return from_calculator(make())


@pytest.fixture(scope="session")
def precision(pytestconfig: pytest.Config) -> Precision:
    """Tolerances."""
    return PRECISIONS[pytestconfig.getoption("ase_precision")]


@pytest.fixture
def accepted(make: Make, structure: Atoms) -> Atoms:
    """Copy of a structure that the calculator was made for."""
    try:
        with_calculator(make, structure).get_potential_energy()
    except REFUSALS as error:
        pytest.skip(f"refused by the calculator: {error}")
    return structure.copy()


def _name(check: Callable[..., None]) -> str:
    return check.__name__.removeprefix("check_")


@pytest.mark.parametrize("check", CONTRACT, ids=_name)
def test_physics(
    check: Callable[..., None], evaluate: Evaluate, accepted: Atoms, precision: Precision
) -> None:
    """Numbers must be right."""
    if check is check_forces:
        check(evaluate, accepted, tolerance=precision.derivative, step=precision.step)
    elif check is check_stress:
        check(evaluate, accepted, tolerance=precision.derivative, step=precision.step / 10)
    else:
        check(evaluate, accepted, tolerance=precision.rounding)


@pytest.mark.parametrize("check", ASE_CONTRACT, ids=_name)
def test_contract(
    check: Callable[..., None], make: Make, accepted: Atoms, precision: Precision
) -> None:
    """ASE must find what it expects."""
    derivative = check is results.check_field
    check(make, accepted, tolerance=precision.derivative if derivative else precision.rounding)


def test_some_structure_is_accepted(make: Make, pytestconfig: pytest.Config) -> None:
    """There must be something to test."""
    reasons = []
    for name, atoms in structures(pytestconfig).items():
        try:
            with_calculator(make, atoms).get_potential_energy()
        except REFUSALS as error:
            reasons.append(f"{name}: {error}")
        else:
            return
    pytest.fail(f"the calculator refuses all structures: {'; '.join(reasons)}")
