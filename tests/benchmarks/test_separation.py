"""Do models tell what they know from what they do not? `make bench ARGS="-k test_separation"`.

A structure is scored by all reasons to doubt it that the calculator names: their number, and as
a fraction between two numbers how far the last layer finds its outermost atom. Printed are, for
each model, the part of its held-out frames (those of the card's division that were not trained
on) that warn, of what, and the errors of forces of these and of the silent ones; and the area under
the ROC curve of the score between held-out frames and such frames compressed, stretched, shaken,
with two atoms exchanged, and with a charge that is wrong by one. Last come the 40 inputs of
`tests/test_inside_outside.py`, crystals, radicals, gases and molecules that users try: those
outside against those among them that models know, and against all held-out frames.

PHICALC_BENCH_FRAMES sets how many held-out frames of each model are tried; by default all.
Models whose data are nowhere to be found are left out, by name: the files are looked for beside the
model, in the current folder and in $PHICALC_DATA.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from phicalc.data.config import KeysConfig
from phicalc.data.files import read_frames
from phicalc.data.frames import LabelledAtoms
from phicalc.graph import connected_parts, from_ase
from phicalc.registry import available_models

from ..test_inside_outside import INSIDE, OUTSIDE, UNTOLD, Judgement, calculator, judge
from .test_uncertainty import BENDINGS, BENT, separation, splits_of

FRAMES = int(os.environ.get("PHICALC_BENCH_FRAMES", "0"))
NAMES = sorted(available_models())
#: Not about what is known, but about what is wrong: charge flows between distant molecules.
LEAK = "fragment charge"
ORGANICS = Path(__file__).parents[1] / "data" / "xtb_organics_test.xyz.gz"


@cache
def held_out(name: str) -> list[LabelledAtoms]:
    """Return the frames of a model's data that it was not trained on, with their charges."""
    if name == "organics":  # its data are too large for the repository
        frames = list(read_frames(ORGANICS, KeysConfig()))
    else:
        splits = splits_of(name)
        frames = [*splits.valid, *splits.test]
    frames = frames[:: max(1, len(frames) // FRAMES)] if FRAMES else frames
    for frame in frames:
        frame.atoms.info["charge"] = frame.total_charge
    return frames


@cache
def judged(name: str) -> list[Judgement]:
    """Judge all held-out frames of a model; none if they are nowhere to be found."""
    try:
        return [judge(name, frame.atoms) for frame in held_out(name)]
    except FileNotFoundError as error:
        print(f"\n{name} left out: {error}")
        return []


def error_of(found: Judgement, frame: LabelledAtoms) -> float:
    """Return the root mean square error of the forces in meV/Å; infinite for absurd results."""
    if found.forces is None:
        return np.inf
    return 1000 * float(np.sqrt(np.mean((found.forces - frame.labels.forces.numpy()) ** 2)))


def fraction_of(name: str, frame: LabelledAtoms) -> float:
    """Return how far labels put the charges of fragments beyond the cutoff from integers, in e."""
    parts = connected_parts(from_ase(frame.atoms, calculator(name).potential.cutoff)).numpy()
    net = np.bincount(np.unique(parts, return_inverse=True)[1], frame.labels.charges.numpy())
    return float(np.abs(net - np.round(net)).max())


def print_leaks(name: str) -> None:
    """Print errors where charge flows between distant fragments, and what the labels say there."""
    pairs = list(zip(judged(name), held_out(name), strict=True))
    leaks = [(found, frame) for found, frame in pairs if LEAK in found.kinds]
    if leaks:
        whole = sum(fraction_of(name, frame) < 0.05 for _, frame in leaks)
        error, every = (np.median([error_of(*each) for each in some]) for some in (leaks, pairs))
        print(f"  charge leaks in {len(leaks)}; labels have whole charges in {whole} of them")
        print(f"  median error of forces there: {error:.0f} meV/Å, everywhere: {every:.0f}")


def ionized(atoms: Atoms, _: np.random.Generator) -> None:
    """Take an electron away."""
    atoms.info["charge"] += 1


def bent(name: str, bend: Callable[[Atoms, np.random.Generator], None]) -> list[Judgement]:
    """Judge some held-out frames that are bent out of shape; not those that stayed as they were."""
    rng, found = np.random.default_rng(1), []
    frames = held_out(name)
    for frame in frames[:: -(-len(frames) // BENT)]:
        atoms, other = frame.atoms, frame.atoms.copy()
        bend(other, rng)
        if other != atoms or other.info["charge"] != atoms.info["charge"]:
            found.append(judge(name, other))
    return found


def scores(judgements: list[Judgement]) -> np.ndarray:
    return np.array([each.score for each in judgements])


@pytest.mark.parametrize("name", NAMES)
def test_held_out_frames_are_told_from_bent_ones(
    name: str, record: Callable[[str, float], None]
) -> None:
    inside = judged(name)
    if not inside:
        pytest.skip(f"the data of {name} are nowhere to be found")
    kinds = Counter(kind for each in inside for kind in each.kinds)
    strange = np.array([bool(each.kinds - {LEAK}) for each in inside])
    errors = np.array(list(map(error_of, inside, held_out(name))))
    named = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    print(f"\n{name}: {len(inside)} held-out frames; warnings: {named or 'none'}")
    silent, warned = np.median(errors[~strange]), np.median(errors[strange]) if strange.any() else 0
    print(f"  {strange.mean():.1%} are called strange; median errors of forces: {warned:.0f} meV/Å")
    print(f"  where called so, {silent:.0f} meV/Å elsewhere")
    print_leaks(name)
    record(f"separation, {name}, held-out frames called strange", strange.mean())
    for kind, bend in {**BENDINGS, "an electron taken": ionized}.items():
        if others := bent(name, bend):
            area = separation(scores(inside), scores(others))
            told = np.mean([bool(each.kinds) for each in others])
            print(f"  {kind:<22} ROC area {area:.3f}, warn {told:.0%}")
            record(f"separation, {name}, {kind}, ROC area", area)
    assert strange.mean() <= 0.01 or warned > 2 * silent


def test_separation_of_inputs(record: Callable[[str, float], None]) -> None:
    outside = [judge(model, make()) for model, _, make in (*OUTSIDE, *UNTOLD)]
    known = [judge(model, make()) for model, _, make in INSIDE]
    frames = [each for name in NAMES for each in judged(name)]
    print()
    for (model, what, _), found in zip(
        [*OUTSIDE, *UNTOLD, *INSIDE], [*outside, *known], strict=True
    ):
        print(f"  {model:<14} {what:<18} {found.score:6.2f}  {', '.join(sorted(found.kinds))}")
    warned = np.mean([bool(each.kinds) for each in frames])
    for against, others in (("the known ones among them", known), ("held-out frames", frames)):
        area = separation(scores(others), scores(outside))
        print(f"{len(outside)} inputs against {len(others)} {against}: ROC area {area:.4f}")
        record(f"separation, inputs against {against}, ROC area", area)
        assert area >= 0.95
    print(f"{warned:.2%} of the {len(frames)} held-out frames of all models warn")
    record("separation, held-out frames of all models that warn", warned)
