"""Compiled inference: a potential as one native function, kept on disk.

`phicalc.derivatives.predict` is traced with its derivatives for one kind of structure (open or
periodic, with or without stress), sizes left open, and compiled ahead of time (AOTInductor). The
function is loaded in a moment by every later process.
"""

import copy
import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import jaxtyping
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental import _config as fx_config
from torch.fx.experimental.proxy_tensor import make_fx

from phicalc.backbone import NequIP
from phicalc.checkpoint import weights_digest
from phicalc.derivatives import Prediction, predict
from phicalc.electrostatics.qeq import DENSE_ATOMS
from phicalc.graph import AtomicGraph, CoulombPlan
from phicalc.potential import Potential

logger = logging.getLogger("phicalc")

Mode = Literal["auto"] | bool

#: Axes along which each input may have any size.
_OPEN_AXES = {
    "positions": (0,), "atomic_numbers": (0,), "batch": (0,), "edge_index": (1,),
    "edge_shifts": (0,), "edge_of_slot": (0, 1), "coulomb.pair_index": (1,),
    "coulomb.pair_shifts": (0,), "coulomb.kvectors": (1,), "coulomb.atom_of_slot": (1,),
    "coulomb.slot_of_atom": (0,),
}  # fmt: skip
_COULOMB = "coulomb."
#: Largest difference between compiled and plain results, relative to the largest number.
_AGREEMENT = {torch.float32: 1e-5, torch.float64: 1e-10}


class Kind(NamedTuple):
    """What a compiled function is compiled for; everything else about a structure may vary."""

    present: tuple[str, ...]
    """Inputs."""
    empty: tuple[str, ...]
    """Those of them that have no elements."""
    stress: bool


class CompiledPredictor:
    """`predict` for one potential, compiled where that is possible.

    Structures that cannot be compiled are predicted as they are: several at once, with open and
    periodic axes, summed on a mesh, with iterated charges or with fragments.

    Parameters
    ----------
    potential
        In evaluation mode; its weights must not change any more.
    mode
        True compiles what is not on disk (a minute or two, once per model and machine), "auto" only
        takes what is there, False never compiles.
    folder
        Where compiled functions are kept; by default ``$PHICALC_CACHE``, or ``phicalc`` in the
        user's cache folder.
    """

    def __init__(self, potential: Potential, mode: Mode = "auto", folder: Path | None = None):
        self.potential, self.mode = potential, mode
        self.folder = cache_folder() if folder is None else folder
        self.functions: dict[Kind, Callable[[AtomicGraph], Prediction] | None] = {}

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is loaded: a copy loads it again."""
        return {**self.__dict__, "functions": {}}

    def __call__(self, graph: AtomicGraph, *, stress: bool = False) -> Prediction:
        """Predict; see `phicalc.derivatives.predict`."""
        kind = kind_of(self.potential, graph, stress) if self.mode else None
        if kind is None:
            return predict(self.potential, graph, stress=stress)
        if kind not in self.functions:
            self.functions[kind] = self._prepare(kind, graph)
        function = self.functions[kind]
        if function is not None:
            try:
                return function(graph)
            except RuntimeError as error:
                self.functions[kind] = None
                _say_uncompiled(error)
        return predict(self.potential, graph, stress=stress)

    def _prepare(
        self, kind: Kind, graph: AtomicGraph
    ) -> Callable[[AtomicGraph], Prediction] | None:
        """Load a function, or compile it if that is wanted; None if there is none."""
        path = self.folder / f"{_key(self.potential, kind)}.pt2"
        if not path.is_file() and self.mode == "auto":
            return None
        plain = predict(self.potential, graph, stress=kind.stress)
        try:
            if not path.is_file():
                logger.warning("compiling the model for %s (a minute or two, once)", path)
                _compile(self.potential, kind, graph, path)
            function = _Function(path, kind, plain)
            _compare(function(graph), plain, next(self.potential.parameters()).dtype)
        except Exception as error:  # compilers raise many kinds
            _say_uncompiled(error)
            return None
        return function


class _Function:
    """A compiled function on disk, as a function of graphs."""

    def __init__(self, path: Path, kind: Kind, like: Prediction):
        self.call = torch._inductor.aoti_load_package(str(path))
        self.kind = kind
        self.terms = tuple(like.terms)
        self.has_charges = like.charges is not None

    def __call__(self, graph: AtomicGraph) -> Prediction:
        inputs = _inputs(graph)
        values = list(self.call(*(inputs[name] for name in self.kind.present)))
        energy, atomic_energies, forces, terms = values[:4]
        rest = values[4:]
        charges = rest.pop(0) if self.has_charges else None
        stress = rest.pop(0) if self.kind.stress else None
        named = dict(zip(self.terms, terms, strict=True))
        return Prediction(energy, atomic_energies, forces, stress, charges, named)


def kind_of(potential: Potential, graph: AtomicGraph, stress: bool) -> Kind | None:
    """Kind of function that this structure needs; None if it cannot be compiled."""
    plan = graph.coulomb
    if graph.n_structures != 1 or graph.fragments is not None:
        return None
    if plan is not None and (plan.mesh is not None or plan.open_length is not None):
        return None
    if potential.config.head == "qeq" and graph.n_atoms > DENSE_ATOMS:
        return None
    inputs = _inputs(graph)
    sizes = {
        name: [inputs[name].shape[axis] for axis in axes]
        for name, axes in _OPEN_AXES.items()
        if name in inputs
    }
    if any(1 in each for each in sizes.values()):  # compilers take a size of one for a constant
        return None
    empty = tuple(name for name, each in sizes.items() if 0 in each)
    return Kind(tuple(inputs), empty, stress)


def cache_folder() -> Path:
    """Where compiled functions are kept."""
    if folder := os.environ.get("PHICALC_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "phicalc"


def _inputs(graph: AtomicGraph) -> dict[str, Tensor]:
    """Tensors that a prediction depends on, by name."""
    found = {name: value for name, value in graph._asdict().items() if isinstance(value, Tensor)}
    found.pop("charge_guess", None)  # for iterations only
    if graph.coulomb is not None:
        parts = graph.coulomb._asdict().items()
        found |= {_COULOMB + name: value for name, value in parts if value is not None}
    return found


def _graph_of(inputs: dict[str, Tensor]) -> AtomicGraph:
    """Inverse of `_inputs`."""
    own = {name: value for name, value in inputs.items() if not name.startswith(_COULOMB)}
    parts = {
        name.removeprefix(_COULOMB): value
        for name, value in inputs.items()
        if name.startswith(_COULOMB)
    }
    return AtomicGraph(**own, coulomb=CoulombPlan(**parts) if parts else None)  # type: ignore[arg-type]  # tensors only


def _compile(potential: Potential, kind: Kind, graph: AtomicGraph, path: Path) -> None:
    """Compile for this kind of structure; the file appears when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _quiet(), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = os.path.join(folder, "function.pt2")
        torch._inductor.aoti_compile_and_package(
            _trace(potential, kind, graph), package_path=unfinished
        )
        os.replace(unfinished, path)


def _trace(potential: Potential, kind: Kind, graph: AtomicGraph) -> ExportedProgram:
    """Record every operation of a prediction and its derivatives, with symbols for sizes."""
    potential = _tabulated(potential)

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        inputs = dict(zip(kind.present, tensors, strict=True))
        result = predict(potential, _graph_of(inputs), stress=kind.stress)
        terms = torch.stack(list(result.terms.values()))
        optional = [value for value in (result.charges, result.stress) if value is not None]
        return [result.energy, result.atomic_energies, result.forces, terms, *optional]

    inputs = _inputs(graph)
    shapes = [
        dict.fromkeys(() if name in kind.empty else _OPEN_AXES.get(name, ()), Dim.AUTO)
        for name in kind.present
    ]
    checked = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)  # shape checks would fix the sizes
    try:
        # Two sizes that are equal by chance must not be taken for one.
        with fx_config.patch(use_duck_shape=False):  # type: ignore[attr-defined]  # added by torch
            trace = make_fx(run, tracing_mode="symbolic", _allow_non_fake_inputs=True)
            program = trace(*inputs.values())
        return export(program, tuple(inputs.values()), dynamic_shapes=tuple(shapes), strict=False)
    finally:
        jaxtyping.config.update("jaxtyping_disable", checked)


def _tabulated(potential: Potential) -> Potential:
    """Copy with tables in place of radial networks, where they are as precise."""
    if next(potential.parameters()).dtype != torch.float32:
        return potential
    potential = copy.deepcopy(potential)
    for module in potential.modules():
        if isinstance(module, NequIP):
            module.tabulate()
    return potential


def _say_uncompiled(error: Exception) -> None:
    """Tell the user once why it will be slower."""
    reason = next(iter(str(error).strip().splitlines()), "")
    logger.warning(
        "going on uncompiled, some times slower: %s: %s (compile=False avoids the attempt)",
        type(error).__name__,
        reason,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's compilers say about themselves."""
    inductor = logging.getLogger("torch._inductor")
    level = inductor.level
    inductor.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        inductor.setLevel(level)


def _compare(compiled: Prediction, plain: Prediction, dtype: torch.dtype) -> None:
    """Refuse a function whose results are not those of plain torch."""
    scales = {  # of terms that may cancel in the results
        "energy": plain.atomic_energies.abs().sum(),
        "atomic_energies": plain.atomic_energies.abs().sum(),
        "forces": plain.forces.abs().max().clamp(min=1.0),
        "stress": plain.forces.abs().max().clamp(min=0.01),
    }
    for name in ("energy", "atomic_energies", "forces", "stress", "charges"):
        expected, found = getattr(plain, name), getattr(compiled, name)
        if expected is None or expected.numel() == 0:
            continue
        scale = scales.get(name, expected.abs().max()).clamp(min=1e-3)
        error = float((found - expected).abs().max() / scale)
        if not error <= _AGREEMENT[dtype]:
            raise ArithmeticError(f"compiled {name} differ by {error:.1e} from uncompiled ones")


def _key(potential: Potential, kind: Kind) -> str:
    """Digest of everything a compiled function depends on."""
    parameter = next(potential.parameters())
    parts = {
        "kind": kind,
        "config": potential.config.to_dict(),
        "weights": weights_digest(potential),
        "dtype": str(parameter.dtype),
        "device": _device_name(parameter.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "source": _source_digest(),
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _device_name(device: torch.device) -> str:
    """Model of the processor, as far as compiled code depends on it."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def _source_digest() -> str:
    """Digest of the code of this package."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


__all__ = ["CompiledPredictor", "Mode", "cache_folder", "kind_of"]
