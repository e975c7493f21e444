"""Evaluate many structures at once: the same numbers as one by one, faster for small ones."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from ase import Atoms

from phicalc.derivatives import Prediction
from phicalc.electrostatics.head import DENSE_ATOMS
from phicalc.graph import AtomicGraph, Conditions, collate
from phicalc.inference.evaluate import (
    Evaluation,
    charges_exceed_plan,
    evaluate,
    evaluation_of,
    prepare,
)
from phicalc.inference.failures import ase_errors
from phicalc.inference.workspace import Workspace
from phicalc.potential import Potential

#: Atoms in one batch, unless the user says otherwise.
BATCH_ATOMS = 1000


def evaluate_batch(
    potential: Potential,
    structures: Sequence[Atoms],
    conditions: Sequence[Conditions],
    *,
    stress: bool = False,
    max_atoms: int = BATCH_ATOMS,
    make_workspace: Callable[[], Workspace] | None = None,
) -> list[Evaluation]:
    """Return everything for many structures; results do not depend on the others in a batch.

    Parameters
    ----------
    potential
        In evaluation mode, on the device where the work is done.
    structures, conditions
        Structures of any kind, and the external conditions of each.
    stress
        Compute the stress of those that are periodic in three directions.
    max_atoms
        Work is divided into batches of this many atoms, which bounds the memory; larger structures
        go alone.
    make_workspace
        Makes the workspace of each structure.

    Raises
    ------
    ValueError
        If `max_atoms` is not positive.
    ase.calculators.calculator.CalculatorError
        As `phicalc.inference.evaluate.evaluate`.
    """
    if max_atoms < 1:
        raise ValueError(f"max_atoms must be positive, got {max_atoms}")
    make = make_workspace or partial(Workspace, potential)
    found: dict[int, Evaluation] = {}
    for members in _groups(structures, stress, max_atoms):
        with_stress = stress and bool(structures[members[0]].pbc.all())
        group = [(structures[i], conditions[i]) for i in members]
        evaluations = _evaluate_group(potential, group, with_stress, make)
        found |= dict(zip(members, evaluations, strict=True))
    return [found[i] for i in range(len(structures))]


def _evaluate_group(
    potential: Potential,
    group: Sequence[tuple[Atoms, Conditions]],
    stress: bool,
    make_workspace: Callable[[], Workspace],
) -> Iterator[Evaluation]:
    """Yield everything for structures that go together."""
    workspaces = [make_workspace() for _ in group]
    if len(group) == 1:
        yield evaluate(potential, *group[0], stress=stress, workspace=workspaces[0])
        return
    prepared = [
        prepare(potential, *each, workspace, stress=stress)
        for each, workspace in zip(group, workspaces, strict=True)
    ]
    graphs = [each.graph for each in prepared]
    with ase_errors():
        together = collate(graphs)
        prediction = workspaces[0].predictor(together, stress=stress)
    parts = _split(prediction, graphs)
    for each, workspace, ready, part in zip(group, workspaces, prepared, parts, strict=True):
        if charges_exceed_plan(workspace, part):
            yield evaluate(potential, *each, stress=stress, workspace=make_workspace())
        else:
            yield evaluation_of(part, each[0], ready, workspace)


def _groups(structures: Sequence[Atoms], stress: bool, max_atoms: int) -> Iterator[list[int]]:
    """Numbers of structures that go together: of the same kind and of about the same size."""

    def kind(i: int) -> tuple[bool, bool]:
        n_atoms = len(structures[i])
        return 0 < n_atoms <= DENSE_ATOMS, stress and bool(structures[i].pbc.all())

    group: list[int] = []
    for i in sorted(range(len(structures)), key=lambda i: (*kind(i), len(structures[i]))):
        size = sum(len(structures[j]) for j in [*group, i])
        if group and (kind(i) != kind(group[0]) or not kind(i)[0] or size > max_atoms):
            yield group
            group = []
        group.append(i)
    if group:
        yield group


#: Fields of a prediction with one row per structure; the others have one per atom.
_PER_STRUCTURE = ("energy", "stress", "polarizability")


def _split(prediction: Prediction, graphs: Sequence[AtomicGraph]) -> Iterator[Prediction]:
    """Yield the prediction for each structure of a batch."""
    sizes = [graph.n_atoms for graph in graphs]
    columns = {
        name: _rows(value, [1] * len(sizes) if name in _PER_STRUCTURE else sizes)
        for name, value in prediction._asdict().items()
        if name != "terms" and value is not None
    }
    for number in range(len(graphs)):
        terms = {name: term[number] for name, term in prediction.terms.items()}
        own: dict[str, Any] = {name: column[number] for name, column in columns.items()}
        yield prediction._replace(**own, terms=terms)


def _rows(values: Any, lengths: list[int]) -> Sequence[Any]:
    """Return the rows of each structure: of a tensor, or of every tensor of a record."""
    if isinstance(values, tuple):
        parts = zip(*(_rows(each, lengths) for each in values), strict=True)
        return [type(values)(*each) for each in parts]
    return torch.split(values, lengths)
