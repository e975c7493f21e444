"""A plugin of pytest under which ASE's own tests meet our calculator; for a process of its own.

Where they ask for calculators by name it is one of them, and where they take EMT, the metals' toy,
they get ours in its place: a tiny network with random weights, in double precision.
"""

from __future__ import annotations

from typing import Any

import ase.calculators.emt
import pytest
from ase.calculators.calculator import register_calculator_class

from phicalc import PhiCalculator
from phicalc.potential import PotentialConfig, build_potential

NAME = "phicalc"
ELEMENTS = ("H", "C", "N", "O", "Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
POTENTIAL = build_potential(
    PotentialConfig.from_dict({
        "elements": ELEMENTS, "cutoff": 3.0, "head": {"name": "qeq", "force_accuracy": 1e-10},
        "backbone": {"name": "nequip", "layers": 1, "channels": 4, "l_max": 1, "correlation": 1},
    }),
    seed=1,
)  # fmt: skip


class Ours(PhiCalculator):
    """Made without arguments, as EMT is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(POTENTIAL, dtype="float64", **kwargs)


register_calculator_class(NAME, Ours)
ase.calculators.emt.EMT = Ours

from ase.test import factories  # noqa: E402 - it takes the names of calculators at its import


@factories.factory(NAME)
class Factory(factories.BuiltinCalculatorFactory):
    """Makes it for the tests that ask by name."""


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask for it wherever a calculator is asked for."""
    if any(metafunc.definition.iter_markers("calculator")):
        metafunc.definition.add_marker(pytest.mark.calculator(NAME))
