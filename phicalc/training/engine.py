"""Energies, forces and stress for training: compiled with double backward, or plain."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Literal, TypeVar

import torch
from jaxtyping import Float64
from torch import Tensor

from phicalc.backbone import Accelerated, backbones_of
from phicalc.compiled.cache import cache_folder
from phicalc.compiled.kernels import prepare_kernels
from phicalc.derivatives import Prediction, no_strain, predict
from phicalc.graph import AtomicGraph
from phicalc.potential import Potential
from phicalc.progress import saying_how_long
from phicalc.training.compiling import for_all_sizes

T = TypeVar("T")

#: ``compile="auto"`` compiles runs of more steps than this (compiling takes a minute or two).
AUTO_COMPILE_STEPS = 2000


class Engine:
    """`phicalc.derivatives.predict` for training: differentiable, and compiled on demand.

    Energy, forces and stress are compiled as one graph with symbolic sizes; the loss is formed
    outside. If the compiler fails, ``"auto"`` reports it once and continues uncompiled; ``True``
    raises.

    Parameters
    ----------
    potential
        The potential; its weights may change between calls, in place.
    stress
        Whether to compute the stress.
    responses
        Those of `phicalc.derivatives.RESPONSES` to compute.
    compile
        Whether to compile: always, never, or "auto", which compiles runs of more than
        `AUTO_COMPILE_STEPS` steps.
    n_steps
        Length of the run in steps.
    report
        Receives messages.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        stress: bool,
        responses: Collection[str] = (),
        compile: Literal["auto"] | bool,
        n_steps: int,
        report: Callable[[str], None],
    ):
        self.may_fall_back = compile == "auto"
        self.report = report
        self.stress, self.plain = stress, _differentiable(potential, stress, responses)
        self.announced = self.succeeded = False
        self.compiled = None
        if compile is True or (compile == "auto" and n_steps > AUTO_COMPILE_STEPS):
            _accelerate(potential)
            self.compiled = torch.compile(self.plain, dynamic=True, fullgraph=True)

    def __call__(self, graph: AtomicGraph) -> Prediction:
        """Return energies (eV), forces (eV/Å) and so on, differentiable by the weights.

        Parameters
        ----------
        graph
            A prepared batch.

        Raises
        ------
        Exception
            Whatever the compiler raises: see `attempt`.
        """
        # Compiled second derivatives want tensors that require a gradient from outside.
        positions = graph.positions.detach().clone().requires_grad_()
        graph = graph._replace(positions=positions)
        strain = no_strain(graph) if self.stress else None
        if self.compiled is None:
            return self.plain(graph, strain)
        if not self.announced:
            self.announced = True
            self.report(
                f"compiling {self._names}: the first steps take one to three minutes on an idle "
                "machine"
            )
        with for_all_sizes():
            return self.compiled(graph, strain)

    @property
    def _names(self) -> str:
        """Names of what is computed."""
        return "energy, forces and stress" if self.stress else "energy and forces"

    def attempt(self, work: Callable[[], T]) -> T:
        """Return the result of work that calls this engine; do it again if compiling fails.

        Parameters
        ----------
        work
            Everything from the forward to the backward pass, in both of which the compiler may
            fail. It must be repeatable.

        Raises
        ------
        Exception
            Whatever `work` raises; failures of the compiler only with ``compile=True``.
        """
        try:
            with self._while_compiling():
                result = work()
            self.succeeded = True
            return result
        except Exception as error:  # the compiler raises many kinds
            if self.compiled is None or not self.may_fall_back:
                raise
            self.compiled = None
            reason = (str(error).strip().splitlines() or [""])[0]
            self.report(
                f"torch.compile failed ({type(error).__name__}: {reason}); continuing uncompiled, "
                "about three times slower (compile: false in the configuration avoids the attempt)"
            )
        return work()

    @contextlib.contextmanager
    def _while_compiling(self) -> Iterator[None]:
        """Say how long compiling takes, until work has succeeded once."""
        if self.compiled is None:
            yield
            return
        comments = saying_how_long(f"compiling {self._names}", self.report)
        # Backward passes are compiled when they are first called for.
        with for_all_sizes(), contextlib.nullcontext() if self.succeeded else comments:
            yield


def _accelerate(potential: Potential) -> None:
    """Let networks use native operations, which compilers take as they are."""
    if potential.device.type == "cpu" and prepare_kernels(cache_folder(), True):
        for backbone in backbones_of(potential).values():
            if isinstance(backbone, Accelerated):
                backbone.accelerate()


Differentiable = Callable[[AtomicGraph, Float64[Tensor, "n_structures 3 3"] | None], Prediction]


def _differentiable(
    potential: Potential, stress: bool, responses: Collection[str]
) -> Differentiable:
    """Return `predict` with its options bound."""

    def energy_and_forces(
        graph: AtomicGraph, strain: Float64[Tensor, "n_structures 3 3"] | None
    ) -> Prediction:
        return predict(
            potential, graph, stress=stress, create_graph=True, strain=strain, responses=responses
        )

    return energy_and_forces
