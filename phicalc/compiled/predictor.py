"""The choice among compiled functions and plain torch."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Literal

from phicalc.compiled.cache import cache_folder, key
from phicalc.compiled.kernels import prepare_kernels
from phicalc.compiled.messages import say_not_here, say_uncompiled
from phicalc.compiled.network import CompiledNetwork, with_compiled_networks
from phicalc.compiled.store import Store
from phicalc.compiled.tracing import AGREEMENT
from phicalc.compiled.whole import Kind, WholePrediction, compare, compile_whole, kind_of
from phicalc.derivatives import Prediction, predict
from phicalc.electrostatics.head import DENSE_ATOMS
from phicalc.graph import AtomicGraph
from phicalc.placement import on_cpu
from phicalc.potential import Potential

Mode = Literal["auto", "background"] | bool


class CompiledPredictor:
    """`predict` for one potential, compiled as far as possible.

    Parameters
    ----------
    potential
        In evaluation mode; its weights must not change any more.
    mode
        True compiles what is not on disk (a minute or two on an idle machine, once per model and
        kind of machine), "auto" only uses what is there, False never compiles. Functions are for
        the CPU: elsewhere nothing is compiled, and True says so (`phicalc.captured` is for GPUs).
    folder
        Where compiled functions are kept; by default ``$PHICALC_CACHE``, or ``phicalc`` in the
        user's cache folder. Functions are loaded from a folder only if this user alone can write
        there; where that is not so, or nothing can be written, they last as long as the process.
    """

    #: Number of atoms of the largest structure to plan without a mesh.
    mesh_above = DENSE_ATOMS

    def __init__(self, potential: Potential, mode: Mode = "auto", folder: Path | None = None):
        device = potential.device
        if mode is True and device.type != "cpu":
            say_not_here(device)
        self.potential, self.mode = potential, mode if device.type == "cpu" else False
        self.folder = cache_folder() if folder is None else folder
        self.functions: dict[Kind, Callable[[AtomicGraph], Prediction] | None] = {}

    @cached_property
    def planning(self) -> Potential:
        """The potential on the CPU, which prepares structures."""
        return on_cpu(self.potential)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is loaded: a copy loads it again."""
        kept = {name: value for name, value in self.__dict__.items() if name != "_hybrid"}
        return {**kept, "functions": {}}

    @cached_property
    def _hybrid(self) -> Potential:
        """The potential with compiled networks."""
        prepare_kernels(self.folder, self.mode is True)
        return with_compiled_networks(self.potential, self.folder, self.mode is True)

    def missing(self, graph: AtomicGraph, stress: bool) -> Kind | str | None:
        """Return what there is no function for, after a prediction for this structure."""
        kind = kind_of(graph, stress, self.potential.head.dense_atoms)
        if kind is not None:
            return kind if self.functions.get(kind) is None else None
        networks = [x for x in self._hybrid.modules() if isinstance(x, CompiledNetwork)]
        return None if all(all(x.halves.values()) for x in networks) else "network"

    def forget(self) -> None:
        """Look for functions anew."""
        self.functions.clear()
        self.__dict__.pop("_hybrid", None)

    def __call__(self, graph: AtomicGraph, *, stress: bool = False) -> Prediction:
        """Return energies (eV), forces (eV/Å) and so on; see `phicalc.derivatives.predict`."""
        if not self.mode:
            return predict(self.potential, graph.to(self.potential.device), stress=stress)
        kind = kind_of(graph, stress, self.potential.head.dense_atoms)
        if kind is None:
            return predict(self._hybrid, graph, stress=stress)
        if kind not in self.functions:
            self.functions[kind] = self._prepare(kind, graph)
        function = self.functions[kind]
        if function is not None:
            try:
                return function(graph)
            except RuntimeError as error:
                self.functions[kind] = None
                say_uncompiled(error)
        return predict(self.potential, graph, stress=stress)

    def _prepare(
        self, kind: Kind, graph: AtomicGraph
    ) -> Callable[[AtomicGraph], Prediction] | None:
        """Load a function, or compile it if that is wanted; None if there is none."""

        def write(paths: list[Path]) -> None:
            compile_whole(self.potential, kind, graph, paths[0])

        prepare_kernels(self.folder, self.mode is True)
        name, wanted = key(self.potential, kind), write if self.mode is True else None
        try:
            found = Store(self.folder).obtain([name], "the prediction as a whole", wanted)
            if found is None:
                return None
            plain = predict(self.potential, graph, stress=kind.stress)
            function = WholePrediction(found[0], kind, plain)
            compare(function(graph), plain, AGREEMENT[self.potential.dtype])
        except Exception as error:  # compilers raise many kinds
            say_uncompiled(error)
            return None
        return function
