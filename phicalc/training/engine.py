"""Energies and forces for training: compiled with double backward, or plain."""

import contextlib
from collections.abc import Callable
from typing import Literal, TypeVar

import torch

from phicalc.derivatives import Prediction, predict
from phicalc.graph import AtomicGraph
from phicalc.potential import Potential

T = TypeVar("T")

#: ``compile="auto"`` compiles runs of more steps than this (compiling takes a minute or two).
AUTO_COMPILE_STEPS = 2000


class Engine:
    """Calls `phicalc.derivatives.predict` so that the result can be trained on.

    The whole of energy, forces and stress is compiled as one graph with symbolic sizes; the loss
    is formed outside. With ``"auto"`` a failure of the compiler is reported once and the run goes
    on uncompiled; with ``True`` it is an error.

    Parameters
    ----------
    potential
        The potential; its weights may change between calls, in place.
    stress
        Whether the stress is needed.
    compile
        Whether to compile.
    n_steps
        Length of the run, which ``"auto"`` judges by.
    report
        Receives messages.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        stress: bool,
        compile: Literal["auto"] | bool,
        n_steps: int,
        report: Callable[[str], None],
    ):
        self.may_fall_back = compile == "auto"
        self.report = report
        self.plain = _differentiable(potential, stress)
        self.announced = False
        self.compiled = None
        if compile is True or (compile == "auto" and n_steps > AUTO_COMPILE_STEPS):
            self.compiled = torch.compile(self.plain, dynamic=True, fullgraph=True)

    def __call__(self, graph: AtomicGraph) -> Prediction:
        """Predict a prepared batch, differentiable with respect to the weights."""
        # Compiled second derivatives want positions that require a gradient from outside.
        positions = graph.positions.detach().clone().requires_grad_()
        graph = graph._replace(positions=positions)
        if self.compiled is None:
            return self.plain(graph)
        if not self.announced:
            self.announced = True
            self.report("compiling energy and forces; the first steps take a minute or two")
        with _autograd_in_graph():
            return self.compiled(graph)

    def attempt(self, work: Callable[[], T]) -> T:
        """Do work that calls this engine (and perhaps goes backward); once more if compiling fails.

        The compiler may stumble in the forward or in the backward pass, so `work` is everything
        from the first to the second, and must be repeatable.
        """
        try:
            return work()
        except Exception as error:  # the compiler raises many kinds
            if self.compiled is None or not self.may_fall_back:
                raise
            self.compiled = None
            reason = (str(error).strip().splitlines() or [""])[0]
            self.report(
                f"torch.compile failed ({type(error).__name__}: {reason}); going on uncompiled, "
                "about three times slower (compile: false in the configuration avoids the attempt)"
            )
        return work()


def _differentiable(potential: Potential, stress: bool) -> Callable[[AtomicGraph], Prediction]:
    """Return `predict` with its options bound."""

    def energy_and_forces(graph: AtomicGraph) -> Prediction:
        return predict(potential, graph, stress=stress, create_graph=True)

    return energy_and_forces


def _autograd_in_graph() -> contextlib.AbstractContextManager[None]:
    """Let the compiler trace ``torch.autograd.grad`` (off by default in torch 2.13)."""
    return torch._dynamo.config.patch(trace_autograd_ops=True)
