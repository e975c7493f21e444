"""Tiny models, which several folders of tests share."""

from __future__ import annotations

from typing import Any

from phicalc.potential import Potential, PotentialConfig, build_potential
from phicalc.upgrades import with_sections


def flat_config(**flat: Any) -> PotentialConfig:
    """Make settings in short: options of all sections side by side, by their names in format 2.

    A head takes the options that it has; so one table of options serves a test of many heads. One
    that is younger than format 2 comes as a mapping.
    """
    head = flat.get("head")
    if not isinstance(head, dict):
        return PotentialConfig.from_dict(with_sections(flat))
    sections = with_sections({**flat, "head": "none"})
    accuracy = {name: flat[name] for name in ("force_accuracy",) if name in flat}
    return PotentialConfig.from_dict({**sections, "head": {**accuracy, **head}})


def charged_potential() -> Potential:
    """Random weights, in float64, with sums that are exact to rounding."""
    config = flat_config(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1,
        force_accuracy=1e-10,
    )  # fmt: skip
    return build_potential(config, seed=1).double()
