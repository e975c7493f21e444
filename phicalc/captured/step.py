"""A prediction whose inputs and results stay where they are, run or replayed."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from phicalc.captured.places import Packed, Places, packed, unpacked
from phicalc.captured.room import Room, filled_up
from phicalc.compiled.tracing import fused
from phicalc.derivatives import Prediction, predict
from phicalc.graph import AtomicGraph, flattened, unflattened
from phicalc.potential import Potential

#: Runs before a recording: libraries make their plans, and memory is found.
_WARM_UP = 3

_Function = Callable[..., Sequence[Shaped[Tensor, "..."]]]


class StaticStep:
    """`predict` for structures of one kind that need no more than some room.

    Nothing on the way depends on a number, so that a GPU can do it again without the host.

    Parameters
    ----------
    potential
        Of one's own, in evaluation mode, whose head has a number of iterations if it iterates.
    graph
        Such a structure, prepared, on the CPU.
    room
        What the structures may need.
    like
        Any prediction for such a structure by `predict`; with stress if that is wanted.
    fuse
        Whether to let a compiler fuse operations, which takes minutes.
    """

    def __init__(
        self, potential: Potential, graph: AtomicGraph, room: Room, like: Prediction, fuse: bool
    ):
        self.room, self.like = room, like._replace(formal=None, residual=None)
        filled = self._filled(graph)
        self.places = Places(filled, potential.device)
        self.places.fill(filled)
        names, stress = list(filled), like.stress is not None

        def run(*tensors: Shaped[Tensor, "..."]) -> Sequence[Shaped[Tensor, "..."]]:
            inputs = unflattened(dict(zip(names, tensors, strict=True)))
            return packed(predict(potential, inputs, stress=stress))

        self.function: _Function = fused(run, self.tensors()) if fuse else run

    def __call__(self, graph: AtomicGraph) -> Prediction:
        """Predict a structure, prepared and on the CPU; the results are on the CPU, too."""
        self.places.fill(self._filled(graph))
        return unpacked(self.results(), self.like)

    def _filled(self, graph: AtomicGraph) -> dict[str, Shaped[Tensor, "..."]]:
        """All inputs, as large as their places."""
        return flattened(with_guess(filled_up(graph, self.room)))

    def tensors(self) -> list[Shaped[Tensor, "..."]]:
        """Return the inputs in their places."""
        return list(self.places.tensors.values())

    def results(self) -> Packed:
        """Results for what is in the places."""
        return self.run()

    def run(self) -> Packed:
        """Compute them, operation by operation."""
        with _one_order_of_sums():
            return Packed(*self.function(*self.tensors()))


class CapturedStep(StaticStep):
    """The same, recorded when it is made, and replayed by one launch; parameters as there."""

    def __init__(
        self, potential: Potential, graph: AtomicGraph, room: Room, like: Prediction, fuse: bool
    ):
        super().__init__(potential, graph, room, like, fuse)
        self.recording, self.recorded = record(self.run)

    def results(self) -> Packed:
        """Results for what is in the places; the next ones overwrite them."""
        self.recording.replay()
        return self.recorded


def record(run: Callable[[], Packed]) -> tuple[torch.cuda.CUDAGraph, Packed]:
    """Return a recording of a function, and where its results are after each replay."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        results = run()
    return recording, results


def with_guess(graph: AtomicGraph) -> AtomicGraph:
    """Return a graph that has charges from which to start, be they zero."""
    if graph.charge_guess is not None:
        return graph
    return graph._replace(charge_guess=torch.zeros_like(graph.positions[:, 0]))


@contextmanager
def _one_order_of_sums() -> Iterator[None]:
    """Let a GPU add up in the same order every time: restarts then are exact to the last bit."""
    options: Any = torch.utils.deterministic
    before, filling = torch.get_deterministic_debug_mode(), options.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    options.fill_uninitialized_memory = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_deterministic_debug_mode(before)
        options.fill_uninitialized_memory = filling
