"""The choice among recorded steps and plain torch, on a GPU."""

import copy
from collections import OrderedDict
from functools import cached_property
from typing import NamedTuple

import torch

from phicalc.captured.room import Room, room_for
from phicalc.captured.step import CapturedStep, StaticStep, with_guess
from phicalc.compiled import Mode
from phicalc.compiled.messages import say_not_captured
from phicalc.compiled.tracing import AGREEMENT, specialized
from phicalc.compiled.whole import compare, is_traceable
from phicalc.derivatives import Prediction, predict
from phicalc.electrostatics.head import DENSE_ATOMS
from phicalc.graph import AtomicGraph, flattened
from phicalc.placement import on_cpu
from phicalc.potential import Potential

#: Recordings that are kept: each holds the memory of one step.
_MOST = 8
#: Largest structure, whose waves take a few gigabytes.
_LARGEST = 20_000
#: Iterations of charges to begin with, and the most that are worth while.
_FEW_ITERATIONS, _MANY_ITERATIONS = 12, 100
#: Largest difference, relative to the largest number, that iterated charges may make.
_ITERATED = 1e-6
#: Axes along which inputs may have room: sizes along them do not make another kind.
_ROOMY = {
    "edge_index": 1, "edge_shifts": 0, "edge_of_slot": 1, "links": 0, "dispersion.places": 1,
    "dispersion.measure": 1, "dispersion.nodes_a": 1, "dispersion.nodes_b": 1,
    "dispersion.nodes_c": 1,
}  # fmt: skip
_ROOMY_PAIRS = {"coulomb.pair_index": 1, "coulomb.pair_shifts": 0}


class Kind(NamedTuple):
    """What a recording is for: inputs with their shapes, whatever may vary left out."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    pbc: tuple[bool, ...]
    stress: bool


def kind_of(graph: AtomicGraph, stress: bool) -> Kind | None:
    """Kind of recording that predicts a prepared structure; None if there cannot be any.

    There cannot where `is_traceable` says no, and for stress where there is no volume.
    """
    if not is_traceable(graph) or graph.n_atoms == 0:
        return None
    periodic = tuple(graph.pbc[0].tolist())
    if stress and not all(periodic):
        return None
    roomy = _ROOMY | (_ROOMY_PAIRS if any(periodic) else {})
    shapes = {name: list(value.shape) for name, value in flattened(with_guess(graph)).items()}
    for name, axis in roomy.items():
        if name in shapes:
            shapes[name][axis] = -1
    return Kind(tuple((name, tuple(s)) for name, s in sorted(shapes.items())), periodic, stress)


class CapturedPredictor:
    """`predict` for one potential on a GPU, recorded as far as possible.

    Parameters
    ----------
    potential
        In evaluation mode; its weights must not change any more.
    mode
        "auto" records a structure when one of its kind comes again, True when it comes first, after
        a compiler has fused its operations (a minute or more), False never.
    """

    #: What predicts; `StaticStep` does so on any device.
    step: type[StaticStep] = CapturedStep

    def __init__(self, potential: Potential, mode: Mode = "auto"):
        self.potential = potential
        self.mode = mode if potential.head.works_unseen else False
        self.steps: OrderedDict[Kind, StaticStep | None] = OrderedDict()
        self.seen: set[Kind] = set()
        self.iterations = _FEW_ITERATIONS

    @property
    def mesh_above(self) -> int:
        """Number of atoms above which sums use a mesh, which cannot be recorded."""
        return _LARGEST if self.mode else DENSE_ATOMS

    @cached_property
    def planning(self) -> Potential:
        """The potential on the CPU, which prepares structures."""
        return on_cpu(self.potential)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is recorded: a copy records it again."""
        return {**self.__dict__, "steps": OrderedDict(), "seen": set()}

    def __call__(self, graph: AtomicGraph, *, stress: bool = False) -> Prediction:
        """Return energies (eV), forces (eV/Å) and so on of a structure prepared on the CPU."""
        kind = kind_of(graph, stress) if self.mode else None
        if kind is None or not self._is_due(kind):
            return self.plain(graph, stress)
        step = self.steps.get(kind)
        if step is not None and step.room.holds(room_for(graph)):
            self.steps.move_to_end(kind)
            found = step(graph)
            if bool(found.energy.isfinite()):
                return found
            self.iterations = min(2 * self.iterations, _MANY_ITERATIONS)
        elif kind in self.steps and step is None:
            return self.plain(graph, stress)
        return self._made(kind, graph, None if step is None else step.room)

    def plain(self, graph: AtomicGraph, stress: bool) -> Prediction:
        """Predict by plain torch."""
        return predict(self.potential, graph.to(self.potential.device), stress=stress)

    def _is_due(self, kind: Kind) -> bool:
        """Whether to record, or to have recorded, a structure of this kind."""
        if self.mode is True or kind in self.seen:
            return True
        self.seen.add(kind)
        return False

    def _made(self, kind: Kind, graph: AtomicGraph, room: Room | None) -> Prediction:
        """Record for this structure and those to come; predict it by plain torch."""
        plain = self.plain(graph, kind.stress)
        if not bool(plain.energy.isfinite()):
            return plain
        wanted = room_for(graph).with_reserve()
        if room is not None:
            wanted = Room(*map(max, wanted, room))
        self.steps[kind] = self._best(graph, wanted, _on_cpu(plain))
        while len(self.steps) > _MOST:
            self.steps.popitem(last=False)
        return plain

    def _best(self, graph: AtomicGraph, room: Room, plain: Prediction) -> StaticStep | None:
        """Return the fastest step that predicts what plain torch does, None if there is none."""
        for fuse in (True, False) if self.mode is True else (False,):
            try:
                self._settle(graph, room, plain)
                step = self._step(self.step, graph, room, plain, fuse)
                compare(step(graph), plain, self._agreement())
            except Exception as error:  # compilers raise many kinds
                say_not_captured(error, fuse)
            else:
                return step
        return None

    def _settle(self, graph: AtomicGraph, room: Room, plain: Prediction) -> None:
        """Find out how many iterations this structure takes, operation by operation."""
        while self.iterations < _MANY_ITERATIONS:
            step = self._step(StaticStep, graph, room, plain, False)
            if bool(step(graph).energy.isfinite()):
                return
            self.iterations = min(2 * self.iterations, _MANY_ITERATIONS)

    def _step(
        self, kind: type[StaticStep], graph: AtomicGraph, room: Room, plain: Prediction, fuse: bool
    ) -> StaticStep:
        """Make a step with its own copy of the potential."""
        potential = specialized(self.potential) if fuse else copy.deepcopy(self.potential)
        potential.head.iterations = self.iterations
        return kind(potential, graph, room, plain, fuse)

    def _agreement(self) -> float:
        """Largest difference from plain torch: iterations end sooner or later than there."""
        exact = AGREEMENT[self.potential.dtype]
        return max(exact, _ITERATED) if self.potential.head.coulomb_products else exact


def _on_cpu(prediction: Prediction) -> Prediction:
    """Return what is compared and unpacked of a prediction, on the CPU."""
    moved = {
        name: value.cpu()
        for name, value in prediction._asdict().items()
        if isinstance(value, torch.Tensor)
    }
    terms = {name: term.cpu() for name, term in prediction.terms.items()}
    return prediction._replace(**moved, terms=terms, formal=None)
