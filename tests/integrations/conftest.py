"""A tiny charged model, and boxes of water for it."""

from __future__ import annotations

import pytest

from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.potential import Potential

from ..tiny import charged_potential


@pytest.fixture(scope="session")
def potential() -> Potential:
    return charged_potential()


@pytest.fixture
def calculator(potential: Potential) -> PhiCalculator:
    return PhiCalculator(potential, dtype="float64", compile=False)
