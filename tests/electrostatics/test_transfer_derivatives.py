"""Derivatives of the head acks2 against differences: first, second, and those that training uses.

In every dimension, charged or not, in a field (along periodic axes, too), with fragments and beside
an electrode; by the dense solver and by iterations.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from phicalc.compiled import CompiledPredictor
from phicalc.derivatives import predict
from phicalc.electrostatics.charges import transfer
from phicalc.graph import AtomicGraph, Fragments, from_ase
from phicalc.potential import Potential

from ..physics.conftest import STRUCTURES, tiny_potential

KINDS = ("cation", "wire", "charged-slab", "crystal", "charged-crystal")
CONDITIONS = ("plain", "field", "fragments", "electrode")
STEP = 3e-4


def make_potential(**settings: object) -> Potential:
    """With links that are soft enough to be seen."""
    potential = tiny_potential(
        head={"name": "acks2", "formal_charges": "element", "hardness": "environment"},
        layers=1,
        **settings,
    )
    with torch.no_grad():
        potential.embedding.mul_(0.5)
        potential.head.softness.offset.fill_(0.0)
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn(potential.head.starting.formal.element.shape, generator=generator)
        potential.head.starting.formal.element.add_(noise)
    potential.head.starting.formal.requires_grad_()  # as `penalties.integer_fragments` trains them
    return potential


@pytest.fixture(scope="module")
def potential() -> Potential:
    return make_potential()


@pytest.fixture
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which solver finds the charges."""
    if request.param == "iterative":

        def choose(coulomb, hardness, network, guess=None, iterations=None):
            return transfer.LinkSolver(coulomb, hardness, network, tolerance=1e-12)

        monkeypatch.setattr("phicalc.electrostatics.charges.acks2.choose_solver", choose)


def structure(kind: str) -> Atoms:
    atoms = STRUCTURES[kind]()
    if kind == "cation":  # two molecules, for fragments
        water = molecule("H2O")
        water.translate([0.3, 0.2, 3.6])
        atoms += water
    return atoms


def prepared(kind: str, condition: str, potential: Potential) -> AtomicGraph:
    """One structure in its conditions."""
    atoms = structure(kind)
    graph = from_ase(atoms, potential.cutoff)
    if condition == "field":
        field = torch.tensor([[0.1, -0.05, 0.2]]).double()
        graph = graph._replace(external_field=field)
    if condition in ("fragments", "electrode"):
        half = len(atoms) // 2
        charge = torch.tensor([[0.5, float(atoms.info["charge"]) - 0.5]]).double()
        fixed = torch.tensor([[condition == "fragments", True]])
        bias = (
            torch.tensor([-0.7]).double() if condition == "electrode" else torch.zeros(1).double()
        )
        number = (torch.arange(len(atoms)) >= half).long()
        graph = graph._replace(
            fragments=Fragments(
                number, fixed, torch.where(fixed, charge, 0.0), torch.where(number == 0, bias, 0.0)
            )
        )
    return potential.prepare(graph)


@contextmanager
def swapped(potential: Potential, values: dict[str, torch.Tensor]) -> Iterator[None]:
    """Give the weights other values for a while."""
    before = {name: each.detach().clone() for name, each in potential.named_parameters()}
    try:
        with torch.no_grad():
            for name, each in potential.named_parameters():
                each.copy_(values[name])
        yield
    finally:
        with torch.no_grad():
            for name, each in potential.named_parameters():
                each.copy_(before[name])


#: By the dense solver charged ones show all that neutral ones would, save beside an electrode.
SOLVED = {"dense": KINDS, "iterative": ("cation", "crystal")}
CASES = [
    (kind, condition, solver)
    for kind, condition, solver in itertools.product(KINDS, CONDITIONS, ("dense", "iterative"))
    if not (condition == "electrode" and "charged" in kind)  # the charge is what flows
    and kind in SOLVED[solver]
    and (solver == "iterative" or kind != "crystal" or condition == "electrode")
]


def slope_of(function: Callable[[float], np.ndarray]) -> np.ndarray:
    """Return the derivative at zero by differences of fourth order."""
    near = function(STEP) - function(-STEP)
    far = function(2 * STEP) - function(-2 * STEP)
    return (8 * near - far) / (12 * STEP)


@pytest.mark.parametrize(("kind", "condition", "solver"), CASES, indirect=["solver"])
def test_derivatives_are_those_of_differences(
    potential: Potential, kind: str, condition: str, solver: None
) -> None:
    """Forces, and the second derivatives with those of the charges."""
    graph = prepared(kind, condition, potential)
    rng = np.random.default_rng(1)
    direction, weights = (torch.from_numpy(rng.normal(size=graph.positions.shape)) for _ in "dw")

    def values(along: float) -> np.ndarray:
        moved = graph._replace(positions=graph.positions + along * direction)
        found = predict(potential, potential.prepare(moved))
        inner = (found.forces * weights).sum() + (found.charges**2).sum()
        return np.array([-float(found.energy), float(inner)])

    at = graph._replace(positions=graph.positions.clone().requires_grad_())
    found = predict(potential, at, create_graph=True)
    inner = (found.forces * weights).sum() + (found.charges**2).sum()
    (curvature,) = torch.autograd.grad(inner, at.positions)
    exact = [float((each.detach() * direction).sum()) for each in (found.forces, curvature)]
    np.testing.assert_allclose(exact, slope_of(values), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "condition", "solver"), CASES, indirect=["solver"])
def test_gradients_of_a_loss_are_those_of_differences(
    potential: Potential, kind: str, condition: str, solver: None
) -> None:
    """With respect to the weights of every part of the head, and of the network."""
    graph = prepared(kind, condition, potential)
    weights = torch.from_numpy(np.random.default_rng(2).normal(size=graph.positions.shape))
    at = graph._replace(positions=graph.positions.clone().requires_grad_())
    generator = torch.Generator().manual_seed(5)
    parameters = dict(potential.named_parameters())
    directions = {
        name: torch.randn(each.shape, generator=generator).to(each)
        for name, each in parameters.items()
    }

    def loss() -> torch.Tensor:
        found = predict(potential, at, create_graph=True)
        return (found.forces * weights).sum() + (found.charges**2).sum() + found.energy.sum()

    def moved(along: float) -> np.ndarray:
        there = {name: each + along * directions[name] for name, each in parameters.items()}
        with swapped(potential, there):
            return np.array(float(loss().detach()))

    gradients = torch.autograd.grad(loss(), parameters.values(), allow_unused=True)
    used = [(g, d) for g, d in zip(gradients, directions.values(), strict=True) if g is not None]
    assert len(used) > 10
    exact = sum(float((gradient * direction).sum()) for gradient, direction in used)
    np.testing.assert_allclose(exact, slope_of(moved), rtol=1e-6, atol=1e-6)


COMPILED = sorted({(kind, condition) for kind, condition, _ in CASES})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where functions are kept from test to test."""
    return tmp_path_factory.mktemp("functions")


@pytest.mark.thorough
@pytest.mark.xdist_group("compiled")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++)")
@pytest.mark.parametrize(("kind", "condition"), COMPILED)
def test_compiled_forces_and_stress_are_those_of_differences(
    folder: Path, kind: str, condition: str
) -> None:
    frozen = make_potential(l_max=0).eval().requires_grad_(False)  # others compile for minutes
    compiled = CompiledPredictor(frozen, True, folder)
    graph = prepared(kind, condition, frozen)
    periodic = bool(graph.pbc.all())
    rng = np.random.default_rng(1)
    direction = torch.from_numpy(rng.normal(size=graph.positions.shape))
    half = torch.from_numpy(rng.normal(size=(3, 3)))
    strain = 0.5 * (half + half.T)

    def energy(moved: AtomicGraph) -> np.ndarray:
        return np.array(float(compiled(frozen.prepare(moved), stress=periodic).energy))

    def moved(along: float) -> np.ndarray:
        return energy(graph._replace(positions=graph.positions + along * direction))

    def strained(along: float) -> np.ndarray:
        deformation = torch.eye(3).double() + along * strain
        cell, positions = graph.cell @ deformation, graph.positions @ deformation
        return energy(graph._replace(cell=cell, positions=positions))

    found = compiled(graph, stress=periodic)
    assert None not in compiled.functions.values()  # some have compiled networks only
    exact = -float((found.forces * direction).sum())
    np.testing.assert_allclose(exact, slope_of(moved), rtol=1e-6, atol=1e-6)
    if periodic:
        volume = float(graph.cell.det().abs())
        exact = volume * float((found.stress[0] * strain).sum())
        np.testing.assert_allclose(exact, slope_of(strained), rtol=1e-6, atol=1e-6)
