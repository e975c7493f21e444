"""The frames of a labelling as tasks: each makes and labels one, and the next follows from it."""

import warnings
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from phicalc.labelling.calculators import CalculatorSpec
from phicalc.labelling.labels import label_structure
from phicalc.labelling.samplers import Sampler
from phicalc.labelling.sampling import Chain


class Task(NamedTuple):
    """One frame to make and to label; everything that a process needs."""

    atoms: Atoms
    """The structure in the state of the frame before."""
    chain: Chain
    frame: int
    sampler: Sampler
    spec: CalculatorSpec
    max_force: float
    """Forces above it end a chain, in eV/Å."""


def first_tasks(
    structures: Sequence[Atoms],
    chains: Sequence[Chain],
    entries: dict[tuple[int, int], dict[str, Any]],
    template: Task,
) -> deque[tuple[int, Task]]:
    """Where each chain goes on."""
    tasks: deque[tuple[int, Task]] = deque()
    for number, chain in enumerate(chains):
        task = template._replace(atoms=structures[chain.structure], chain=chain)
        while (entry := entries.get((number, task.frame))) is not None and "state" in entry:
            task = following(task, entry)
        if task.frame < chain.n_frames and (number, task.frame) not in entries:
            tasks.append((number, task))
    return tasks


def following(task: Task, entry: dict[str, Any]) -> Task:
    """Return the task after the one that gave this entry."""
    return task._replace(atoms=restored(task.atoms, entry["state"]), frame=task.frame + 1)


def restored(atoms: Atoms, state: dict[str, Any]) -> Atoms:
    """Copy a structure in another state."""
    copy = atoms.copy()
    copy.set_constraint()
    copy.set_cell(state["cell"])
    copy.positions = np.array(state["positions"])
    copy.set_momenta(np.array(state["momenta"]))
    return copy


def perform(task: Task) -> dict[str, Any]:
    """Make and label one frame; a failure is a result, too, and so is what warns meanwhile."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        try:
            atoms = task.sampler.advance(task.chain, task.frame, task.atoms, task.spec)
            labels = label_structure(atoms, task.spec, task.max_force)
        except (Exception, SystemExit) as error:  # calculators raise, and exit, as they like
            return {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    state = {
        "positions": atoms.positions.tolist(),
        "momenta": atoms.get_momenta().tolist(),
        "cell": atoms.cell.array.tolist(),
    }
    found = {_kind(each.message): " ".join(str(each.message).split()) for each in said}
    return {"state": state, "labels": labels} | ({"warnings": found} if found else {})


def _kind(message: Warning | str) -> str:
    """Return the kind of a warning, which ours know, or its class."""
    return getattr(message, "kind", "") or type(message).__name__
