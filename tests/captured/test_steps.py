"""Recorded steps: nothing is looked at, and replays give the numbers of plain torch."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms

from phicalc.captured import CapturedPredictor
from phicalc.captured.predictor import kind_of
from phicalc.captured.room import filled_up, room_for
from phicalc.captured.step import StaticStep, with_guess
from phicalc.checkpoint import load_model
from phicalc.compiled.tracing import specialized
from phicalc.derivatives import Prediction, predict
from phicalc.graph import AtomicGraph, collate, from_ase
from phicalc.inference.domain import domain_of
from phicalc.inference.evaluate import evaluate
from phicalc.inference.workspace import Workspace
from phicalc.structures import water_box

from .cases import (
    HEADS,
    STRUCTURES,
    ReplayedPredictor,
    ReplayedStep,
    assert_same,
    expected,
    make_potential,
    moves,
    prepared,
    salt,
)
from .lint import Lint


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("structure", ["salt", "water", "molecule", "ion"])
def test_nothing_is_looked_at(head: str, structure: str) -> None:
    atoms = STRUCTURES[structure]()
    potential = make_potential(head, atoms, layers=2, l_max=2, correlation=3)
    potential.head.iterations = 5
    graph = prepared(potential, atoms)
    filled = with_guess(filled_up(graph, room_for(graph)))
    with Lint() as lint:
        predict(potential, filled, stress=bool(atoms.pbc.all()))
    assert lint.found == {}
    assert lint.operations > 300


def test_lint_finds_what_it_looks_for() -> None:
    atoms = salt()
    potential = make_potential("acks2", atoms)  # which solves a linear system, and looks
    with Lint() as lint:
        predict(potential, prepared(potential, atoms))
        float(torch.ones(1))
        torch.ones(3)[torch.tensor([True, False, True])]
    assert {"_linalg_solve_ex", "_local_scalar_dense", "index"} <= set(lint.found)


@pytest.mark.parametrize(
    ("head", "structure"),
    [*((head, "salt") for head in HEADS), ("acks2", "ion"), ("latent+links", "film")],
)
def test_replays_are_what_plain_torch_predicts(head: str, structure: str) -> None:
    atoms = STRUCTURES[structure]()
    potential = make_potential(head, atoms)
    predictor = ReplayedPredictor(potential, True)
    kinds = set()
    for each in moves(atoms, 4):
        graph, stress = prepared(potential, each), bool(atoms.pbc.all())
        kinds.add(kind_of(graph, stress))
        assert_same(predictor(graph, stress=stress), expected(potential, each), 1e-6)
    if None in kinds:  # with open and periodic axes
        assert not predictor.steps
    else:
        assert set(predictor.steps) == kinds
        assert None not in predictor.steps.values()


@pytest.mark.parametrize("head", ["latent+links", "acks2"])
def test_more_room_is_made_where_it_is_needed(head: str) -> None:
    atoms = salt()
    potential = make_potential(head, atoms)
    predictor, rooms = ReplayedPredictor(potential, True), []
    for scale in (1.0, 1.02, 0.8, 1.0):
        each = atoms.copy()
        each.set_cell(atoms.cell * scale, scale_atoms=True)
        graph = prepared(potential, each)
        assert_same(predictor(graph, stress=True), expected(potential, each), 1e-6)
        (step,) = (predictor.steps[kind_of(graph, True)],)
        assert step is not None
        rooms.append(step.room)
        assert step.room.holds(room_for(graph))
    assert rooms[2].edges > rooms[0].edges


def test_solutions_that_have_not_converged_are_found_anew() -> None:
    atoms = STRUCTURES["ion"]()
    potential = make_potential("qeq", atoms)
    predictor = ReplayedPredictor(potential, True)
    predictor.iterations = 1
    for each in moves(atoms, 3):
        graph = prepared(potential, each)
        assert_same(predictor(graph), expected(potential, each), 1e-6)
    assert predictor.iterations > 1
    assert predictor.steps[kind_of(graph, False)] is not None
    potential.head.iterations = 1
    assert not predict(potential, graph).energy.isfinite()


class Unrecorded(CapturedPredictor):
    """Does the same operation by operation."""

    step = StaticStep


class Broken(StaticStep):
    """Fails while it is made."""

    def __init__(self, *args: object) -> None:
        raise RuntimeError("no such operation\nand much more")


class Wrong(ReplayedStep):
    """Predicts something else."""

    def __call__(self, graph: AtomicGraph) -> Prediction:
        found = super().__call__(graph)
        return found._replace(forces=found.forces + 1)


@pytest.mark.parametrize("step", [Broken, Wrong])
def test_bad_recordings_are_not_used(step: type[StaticStep], caplog) -> None:
    atoms = salt()
    potential = make_potential("latent", atoms)
    predictor = CapturedPredictor(potential, True)
    predictor.step = step
    for each in moves(atoms, 3):
        found = predictor(prepared(potential, each), stress=True)
        assert torch.equal(found.forces, expected(potential, each).forces)
    fused, recorded = (r.message for r in caplog.records if r.name == "phicalc")
    assert "continuing without fused operations" in fused
    assert "continuing without recorded steps" in recorded
    assert "much more" not in fused + recorded


def test_what_comes_once_is_not_recorded() -> None:
    atoms = salt()
    potential = make_potential("latent", atoms)
    predictor = ReplayedPredictor(potential, "auto")
    first, second = moves(atoms, 2)
    predictor(prepared(potential, first))
    assert not predictor.steps
    predictor(prepared(potential, second))
    assert len(predictor.steps) == 1
    never = ReplayedPredictor(potential, False)
    for each in (first, second):
        never(prepared(potential, each))
    assert not never.steps


def test_some_recordings_are_kept() -> None:
    potential = make_potential("none", salt())
    predictor = Unrecorded(potential, "auto")
    for n in range(2, 13):
        atoms = Atoms(f"Na{n}", positions=[(3.0 * i, 0, 0) for i in range(n)])
        for _ in range(2):
            predictor(prepared(potential, atoms))
    assert len(predictor.steps) == 8
    predictor(prepared(potential, atoms))
    assert len(predictor.steps) == 8


def in_a_batch(potential, atoms: Atoms) -> AtomicGraph:
    return collate([prepared(potential, atoms)] * 2)


def test_what_cannot_be_recorded_is_predicted_by_plain_torch() -> None:
    atoms = salt()
    potential = make_potential("acks2", atoms)
    assert kind_of(in_a_batch(potential, atoms), False) is None
    empty = from_ase(Atoms(), potential.cutoff)
    assert kind_of(empty, False) is None
    phi = make_potential("solve", atoms)
    predictor = ReplayedPredictor(phi, True)
    for each in moves(atoms, 2):
        predictor(prepared(phi, each))
    assert not predictor.steps


def test_copies_record_for_themselves() -> None:
    atoms = salt()
    potential = make_potential("latent", atoms)
    predictor = Unrecorded(potential, "auto")
    graph = prepared(potential, atoms)
    predictor(graph)
    predictor(graph)
    assert predictor.steps
    for other in (copy.deepcopy(predictor), pickle.loads(pickle.dumps(predictor))):
        assert not other.steps
        assert_same(other(graph), predictor(graph))


@pytest.mark.thorough
def test_fused_operations_predict_the_same() -> None:
    atoms = salt()
    potential = make_potential("latent", atoms, dispersion="none")
    graph, plain = prepared(potential, atoms), expected(potential, atoms)
    step = StaticStep(specialized(potential), graph, room_for(graph), plain, True)
    assert_same(step(graph), plain)


def test_calculators_results_are_the_same(water_model) -> None:
    potential, domain = water_model
    workspaces = [
        Workspace(potential, domain=domain),
        Workspace(potential, domain=domain, predictor=ReplayedPredictor(potential, "auto")),
    ]
    for atoms in moves(water_box(8, seed=1), 3):
        plain, replayed = (
            evaluate(potential, atoms, stress=True, workspace=each) for each in workspaces
        )
        assert list(plain.results) == list(replayed.results)
        for name, value in plain.results.items():
            np.testing.assert_allclose(replayed.results[name], value, rtol=1e-9, atol=1e-9)
        assert replayed.uncertainty is not None
        np.testing.assert_allclose(
            replayed.uncertainty.forces_std, plain.uncertainty.forces_std, rtol=1e-9
        )
    assert any(workspaces[1].predictor.steps.values())


@pytest.fixture
def water_model():
    potential, card = load_model("water-small", dtype="float64")
    return potential.eval().requires_grad_(False), domain_of(card)
