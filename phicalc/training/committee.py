"""Committees: the same training several times, from different random numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from phicalc.state import write_atomically
from phicalc.training.config import TrainingConfig, load_config
from phicalc.training.run import TrainingResult, say, train


def train_committee(
    config: TrainingConfig,
    members: int,
    base: Path | None = None,
    report: Callable[[str], None] = say,
) -> list[TrainingResult]:
    """Train several potentials that differ in their seed only, one after another.

    Member i has the seed ``config.seed + i`` and the output folder ``member_i`` (from 0) inside
    that of the configuration: a folder that `phicalc.CommitteeCalculator` takes as it
    is. All have the same training and validation frames. A run that is killed is continued by the
    same call.

    Parameters
    ----------
    config, base, report
        As for `phicalc.training.train`.
    members
        How many.

    Returns
    -------
    list of TrainingResult
        One for each member; their errors are written to ``committee.json``, too.

    Raises
    ------
    ValueError
        For fewer than two members, and as `phicalc.training.train`.
    """
    if members < 2:
        raise ValueError(f"a committee needs at least 2 members, got {members}")
    if config.init is not None:
        report(
            "all members start from the same weights and differ in the order of batches alone: "
            "they will disagree less than members trained from the start, and less than they err"
        )
    folder = Path(config.output)
    results = []
    for i in range(members):
        report(f"member {i} of {members}:")
        own = replace(config, seed=config.seed + i, output=str(folder / f"member_{i}"))
        results.append(train(own, base, report))
    if all(result.metrics for result in results):  # not in helpers of a `torchrun`
        table: list[dict[str, Any]] = [
            {role: found["metrics"] for role, found in result.metrics.items() if role in _ROLES}
            for result in results
        ]
        write_atomically(folder / "committee.json", (json.dumps(table, indent=2) + "\n").encode())
    return results


_ROLES = ("train", "valid", "test")


def train_committee_from_yaml(
    path: str | Path, overrides: list[str], members: int
) -> list[TrainingResult]:
    """Train a committee as a YAML file says (see `phicalc.training.train_from_yaml`)."""
    return train_committee(load_config(path, overrides), members, Path(path).parent)
