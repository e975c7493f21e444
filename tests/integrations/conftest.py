"""A tiny charged model, and boxes of water for it."""

from __future__ import annotations

import pytest

from phicalc.calculator import PhiCalculator
from phicalc.potential import Potential, PotentialConfig, build_potential


@pytest.fixture(scope="session")
def potential() -> Potential:
    """Random weights, in float64, with sums that are exact to rounding."""
    config = PotentialConfig(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1,
        force_accuracy=1e-10,
    )  # fmt: skip
    return build_potential(config, seed=1).double()


@pytest.fixture
def calculator(potential: Potential) -> PhiCalculator:
    return PhiCalculator(potential, dtype="float64", compile=False)
