"""Many structures: the numbers of one process, in order; failures and deaths stay alone."""

from __future__ import annotations

import os
import pickle
import sys
from importlib import import_module

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones

from phicalc.calculators.committee import CommitteeCalculator
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.many import Failure, map_structures
from phicalc.structures import water_box
from phicalc.workers import workers_of

from .tiny import charged_potential

BOXES = [water_box(2, density=0.3, seed=seed) for seed in range(5)]
STRANGER = Atoms("Na2", [[0, 0, 0], [0, 0, 2]])

#: Tasks as a module that worker processes can import.
TASKS = """
import os
import torch
from ase.calculators.calculator import Calculator
from phicalc.structures import evaluate_structures

class Both(Calculator):
    def __init__(self, *calculators):
        super().__init__()
        self.calculators = calculators

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

def evaluate(indices, frames, both):
    return list(zip(*(evaluate_structures(frames, one) for one in both.calculators)))

def misbehave(indices, frames, calculator):
    if 2 in indices:
        os._exit(1)
    if 4 in indices:
        raise Odd("this", "that")
    return [(index, len(frames), os.getpid(), torch.get_num_threads()) for index in indices]
"""


@pytest.fixture
def potential():
    return charged_potential()


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    (tmp_path / "tasks_of_workers.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("tasks_of_workers")
    sys.modules.pop("tasks_of_workers")


def numbers(indices, frames, calculator):
    """Refuse one structure."""
    if any(atoms.symbols[0] == "Na" for atoms in frames):
        raise ValueError("there is sodium")
    return [(index, len(frames)) for index in indices]


def test_a_chunk_that_fails_is_halved():
    frames = [*BOXES[:2], STRANGER, *BOXES[2:]]
    found = map_structures(numbers, frames, LennardJones())
    assert isinstance(found[2], Failure)
    assert str(found[2]) == "structure 2: there is sodium"
    others = [result for result in found if result is not found[2]]
    assert [index for index, _ in others] == [0, 1, 3, 4, 5]
    assert {size for _, size in others} == {1, 3}  # of 6: 3 and 3, the second half at once
    assert [atoms.calc for atoms in frames] == [None] * 6


def test_chunks_have_the_size_asked_for():
    found = map_structures(numbers, BOXES, LennardJones(), chunk=2)
    assert [size for _, size in found] == [2, 2, 2, 2, 1]
    assert map_structures(numbers, [], LennardJones()) == []


def test_workers_give_the_numbers_of_this_process(tasks, potential):
    committee = CommitteeCalculator([potential, potential])
    calculators = tasks.Both(PhiCalculator(potential), committee)
    frames = [BOXES[0], STRANGER, *BOXES[1:]]
    here = map_structures(tasks.evaluate, frames, calculators)
    there = map_structures(tasks.evaluate, frames, calculators, workers=2, chunk=2)
    assert str(here[1]) == str(there[1])
    assert "Na" in str(here[1])
    pairs = [
        pair for index in (0, 2, 3, 4, 5) for pair in zip(here[index], there[index], strict=True)
    ]
    assert len(pairs) == 10
    for mine, theirs in pairs:
        assert mine.positions.tolist() == theirs.positions.tolist()
        assert {"energy", "forces", "charges"} <= set(mine.calc.results)
        for name, value in mine.calc.results.items():
            np.testing.assert_allclose(theirs.calc.results[name], value, atol=1e-5)


def test_the_death_of_a_worker_costs_one_structure(tasks):
    before = os.environ.get("OMP_NUM_THREADS")
    found = map_structures(tasks.misbehave, BOXES, LennardJones(), workers=2)
    assert (
        str(found[2])
        == "structure 2: its worker process died: killed from outside, or out of memory"
    )
    assert str(found[4]) == "structure 4: Odd: this and that"
    for index in (0, 1, 3):
        assert found[index][0] == index
        assert found[index][2] != os.getpid()
        assert found[index][3] == 1  # thread
    assert os.environ.get("OMP_NUM_THREADS") == before


class Kept(LennardJones):
    """Refuses to be sent."""

    def __reduce__(self):
        raise pickle.PicklingError("it stays here")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "workers must be a positive number, got 0"),
        ({"workers": -2}, "workers must be a positive number, got -2"),
        ({"workers": 2, "scheduler": "tcp://nowhere:1"}, "give workers or scheduler, not both"),
        ({"chunk": 0}, "chunk must be positive, got 0"),
        ({"workers": 2}, "cannot be sent to worker processes: it stays here"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        map_structures(numbers, BOXES, Kept(), **settings)


def test_a_cluster_needs_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    hint = r"dask.distributed: pip install .*\[distributed\]"
    with pytest.raises(ImportError, match=hint), workers_of(scheduler="tcp://nowhere:1"):
        pass
