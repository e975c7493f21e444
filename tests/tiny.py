"""Tiny models, which several folders of tests share."""

from __future__ import annotations

from typing import Any

from phicalc.potential import Potential, PotentialConfig, build_potential
from phicalc.upgrades import with_sections

#: Options of the backbone that format 2 did not know.
YOUNG_OPTIONS = ("inner_envelope", "nearest_distances", "density_limit")


def flat_config(**flat: Any) -> PotentialConfig:
    """Make settings in short: options of all sections side by side, by their names in format 2.

    A head takes the options that it has; so one table of options serves a test of many heads. One
    that is younger than format 2 comes as a mapping, and younger options of the backbone are known.
    """
    head, young = flat.get("head"), {n: flat.pop(n) for n in YOUNG_OPTIONS if n in flat}
    sections = with_sections({**flat, "head": "none"} if isinstance(head, dict) else flat)
    if isinstance(head, dict):
        accuracy = {name: flat[name] for name in ("force_accuracy",) if name in flat}
        sections["head"] = {**accuracy, **head}
    sections["backbone"] = {**sections["backbone"], **young}
    return PotentialConfig.from_dict(sections)


def charged_potential() -> Potential:
    """Random weights, in float64, with sums that are exact to rounding."""
    config = flat_config(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1,
        force_accuracy=1e-10,
    )  # fmt: skip
    return build_potential(config, seed=1).double()
