"""Active learning beside random sampling, ethanol from nothing: `-k improve_beside`.

For three seeds the same loop runs twice, choosing by uncertainty and at random. Printed are the
labels, minutes, errors and checks passed after every round, and at how many labels the
certificate's molecule part was passed first. Errors are those on frames of dynamics with GFN2-xTB
that are the same for all. `-k "improve_beside and random-0"` is one of the runs.
With ``PHICALC_BENCH_FOLDER`` runs stay there, and those that have ended are read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import ase.io
import pytest
from ase.build import molecule

from phicalc.improvement import ImprovementResult, config_of, improve
from phicalc.labelling import CalculatorSpec, DynamicsSampler, label
from phicalc.training import evaluate_model

pytest.importorskip("tblite")

SEEDS = range(int(os.environ.get("PHICALC_SEEDS", "3")))
OVERRIDES = ("first_labels=40", "round_labels=25", "steps=1200", "budget.max_labels=215")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the runs go, with the molecule and frames to measure errors on."""
    given = os.environ.get("PHICALC_BENCH_FOLDER")
    found = Path(given) if given else tmp_path_factory.mktemp("improve")
    found.mkdir(parents=True, exist_ok=True)
    ase.io.write(found / "ethanol.xyz", molecule("CH3CH2OH"))
    sampler = DynamicsSampler((300.0, 600.0), frames=50, interval=50, seed=99)
    label([molecule("CH3CH2OH")], CalculatorSpec("gfn2-xtb"), found / "test.extxyz", sampler)
    return found


def forces_error(model: Path, frames: Path) -> float:
    """Return the mean absolute error of forces in meV/Å."""
    found: float = evaluate_model(model, frames, report=lambda _: None)["metrics"]["forces_mae"]
    return found


@pytest.fixture(scope="module")
def needed() -> Iterator[dict[tuple[str, int], float]]:
    """Labels at which each way passed the certificate, by seed; compared at the end."""
    found: dict[tuple[str, int], float] = {}
    yield found
    print(f"\nlabels to pass: {found}")


def labels_to_pass(result: ImprovementResult) -> float:
    """Return the labels at which the certificate was passed; infinite if it never was."""
    return next((r.total_calls for r in result.records if r.is_passed), float("inf"))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", ["uncertainty", "random"])
def test_improve_beside_random_sampling(
    way: str,
    seed: int,
    folder: Path,
    needed: dict[tuple[str, int], float],
    record: Callable[[str, float], None],
) -> None:
    overrides = [f"output={folder / way}_{seed}", f"select={way}", f"seed={seed}"]
    config = config_of([folder / "ethanol.xyz"], [*OVERRIDES, *overrides])
    result = improve(config, lambda _: None)
    minutes = sum(each.seconds for each in result.records) / 60
    print(f"\nseed {seed}, {way}, {minutes:.1f} min: {result.line}")
    for each in result.records:
        model = folder / f"{way}_{seed}" / f"round_{each.number:02d}" / "train" / "model"
        error = forces_error(model, folder / "test.extxyz")
        failed = f"; failing: {', '.join(each.failed)}" if each.failed else ""
        print(f"  {each.total_calls:4} labels  {error:6.1f} meV/Å  {each.certificate}{failed}")
    needed[way, seed] = labels_to_pass(result)
    record(f"improve, {way}, seed {seed}, labels to pass", needed[way, seed])
    if way == "random" and ("uncertainty", seed) in needed:
        assert needed["uncertainty", seed] <= needed[way, seed]
