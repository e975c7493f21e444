"""A tiny model of water with charges, which several folders of tests share."""

from __future__ import annotations

from phicalc.potential import Potential, PotentialConfig, build_potential


def charged_potential() -> Potential:
    """Random weights, in float64, with sums that are exact to rounding."""
    config = PotentialConfig(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1,
        force_accuracy=1e-10,
    )  # fmt: skip
    return build_potential(config, seed=1).double()
