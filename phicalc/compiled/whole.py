"""A whole prediction, with its derivatives, as one compiled function."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from phicalc.compiled.tracing import (
    Function,
    compile_functions,
    specialized,
    trace,
)
from phicalc.derivatives import Prediction, predict
from phicalc.electrostatics.head import DENSE_ATOMS
from phicalc.graph import AtomicGraph, flattened, unflattened
from phicalc.potential import Potential

#: Axes along which each input may have any size.
_OPEN_AXES: dict[str, tuple[int, ...]] = {
    "positions": (0,), "atomic_numbers": (0,), "batch": (0,), "edge_index": (1,),
    "edge_shifts": (0,), "edge_of_slot": (0, 1), "links": (0,), "coulomb.pair_index": (1,),
    "coulomb.pair_shifts": (0,), "coulomb.kvectors": (1,), "coulomb.millers_a": (0,),
    "coulomb.millers_b": (0,), "coulomb.millers_c": (0,), "atom_of_slot": (1,),
    "slot_of_atom": (0,), "dispersion.pair_index": (1,), "dispersion.places": (1,),
    "dispersion.measure": (1,), "dispersion.nodes_a": (1,), "dispersion.nodes_b": (1,),
    "dispersion.nodes_c": (1,),
}  # fmt: skip
#: Parts of a prediction that not every potential and structure has.
_OPTIONAL = ("stress", "charges", "atomic_dipoles", "last_features")


class Kind(NamedTuple):
    """What a function is compiled for; everything else about a structure may vary."""

    present: tuple[str, ...]
    """Inputs."""
    empty: tuple[str, ...]
    """Those of them that have no elements."""
    stress: bool


def kind_of(graph: AtomicGraph, stress: bool, largest: int = DENSE_ATOMS) -> Kind | None:
    """Kind of function that predicts this structure as a whole; None if that cannot be.

    It cannot where `is_traceable` says no. Structures of more than `largest` atoms gain nothing
    from it, and need more memory.
    """
    if not is_traceable(graph) or graph.n_atoms > largest:
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


def is_traceable(graph: AtomicGraph) -> bool:
    """Whether a prediction is the same list of operations for all structures like this one.

    It is not for several structures at once, with open and periodic axes, sums on a mesh, or
    fragments.
    """
    coulomb, dispersion = graph.coulomb, graph.dispersion
    if graph.n_structures != 1 or graph.fragments is not None:
        return False
    if any(plan is not None and plan.mesh is not None for plan in (coulomb, dispersion)):
        return False
    if coulomb is not None and coulomb.open_length is not None:
        return False
    return dispersion is None or dispersion.open_axes is None


class WholePrediction:
    """A compiled function of tensors, as a function of graphs.

    Parameters
    ----------
    call
        The function.
    kind
        What it was compiled for.
    like
        Any prediction of the potential: shows which optional parts and terms there are.
    """

    def __init__(self, call: Function, kind: Kind, like: Prediction):
        self.call, self.kind = call, kind
        self.terms = tuple(like.terms)
        self.optional = [name for name in _OPTIONAL if getattr(like, name) is not None]

    def __call__(self, graph: AtomicGraph) -> Prediction:
        """Predict a structure of this kind."""
        inputs = _inputs(graph)
        values = self.call(*(inputs[name] for name in self.kind.present))
        energy, atomic_energies, forces, terms, *rest = values
        found = dict.fromkeys(_OPTIONAL) | dict(zip(self.optional, rest, strict=True))
        named = dict(zip(self.terms, terms, strict=True))
        return Prediction(energy, atomic_energies, forces, **found, terms=named)


def compile_whole(potential: Potential, kind: Kind, graph: AtomicGraph, path: Path) -> None:
    """Compile for this kind of structure."""
    potential = specialized(potential)

    def run(*tensors: Shaped[Tensor, "..."]) -> Sequence[Float[Tensor, "..."]]:
        inputs = dict(zip(kind.present, tensors, strict=True))
        result = predict(potential, unflattened(inputs), stress=kind.stress)
        terms = torch.stack(list(result.terms.values()))
        optional = [x for name in _OPTIONAL if (x := getattr(result, name)) is not None]
        return [result.energy, result.atomic_energies, result.forces, terms, *optional]

    inputs = list(_inputs(graph).values())
    axes = [() if name in kind.empty else _OPEN_AXES.get(name, ()) for name in kind.present]
    compile_functions({path: (trace(run, inputs), inputs, axes)})


def compare(compiled: Prediction, plain: Prediction, agreement: float) -> None:
    """Refuse a function whose results are not those of plain torch.

    They agree if they differ by `agreement` times the largest number at most.

    Raises
    ------
    ArithmeticError
        Which says what differs, and by how much.
    """
    scales = {  # of terms that may cancel in the results
        "energy": plain.atomic_energies.abs().sum(),
        "atomic_energies": plain.atomic_energies.abs().sum(),
        "forces": plain.forces.abs().max().clamp(min=1.0),
        "stress": plain.forces.abs().max().clamp(min=0.01),
        # sums of many terms, from which error bars are made
        "last_features": 10 * _largest(plain.last_features),
    }
    for name in ("energy", "atomic_energies", "forces", *_OPTIONAL):
        expected, found = getattr(plain, name), getattr(compiled, name)
        if expected is None or expected.numel() == 0:
            continue
        scale = scales.get(name, expected.abs().max()).clamp(min=1e-3)
        error = float((found - expected).abs().max() / scale)
        if not error <= agreement:
            raise ArithmeticError(f"compiled {name} differ by {error:.1e} from uncompiled ones")


def _largest(values: Float[Tensor, "..."] | None) -> Float[Tensor, ""]:
    """Return the largest absolute value, 0 if there is none."""
    found = torch.zeros(1) if values is None or not values.numel() else values
    return found.abs().max()


def _inputs(graph: AtomicGraph) -> dict[str, Shaped[Tensor, "..."]]:
    """Tensors that a prediction depends on, by name."""
    found = flattened(graph)
    found.pop("charge_guess", None)  # for iterations only
    return found
