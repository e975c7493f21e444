"""The network alone as a pair of compiled functions: features forward, derivatives backward.

Everything around it stays as it is, so this serves every kind of structure: batches, slabs, meshes
and iterated charges. All that the network sees of a structure are the vectors of its edges.
"""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

from phicalc.backbone import FromEdges, backbones_of
from phicalc.compiled.cache import key
from phicalc.compiled.messages import say_not_from_edges, say_uncompiled
from phicalc.compiled.partition import cut, placeholders, symbolic_axes
from phicalc.compiled.store import LoadedFunction, Store
from phicalc.compiled.tracing import (
    AGREEMENT,
    compile_functions,
    specialized,
    trace,
)
from phicalc.graph import AtomicGraph, edge_vectors
from phicalc.potential import Potential

#: Axes of any size of the embedding, elements, vectors, neighbours, and the table of slots.
_AXES = ((0,), (0,), (0,), (0,), (0, 1))
_EMBEDDING, _VECTORS = 0, 2


def with_compiled_networks(potential: Potential, folder: Path | None, compiling: bool) -> Potential:
    """Return a copy that calls compiled networks where these exist or may be compiled.

    Parameters
    ----------
    potential
        The potential.
    folder
        Where functions are kept, see `phicalc.compiled.store.Store`.
    compiling
        Whether to compile those that are not there.
    """
    result, template = copy.deepcopy(potential), specialized(potential)
    for name, special in backbones_of(template).items():
        if isinstance(special, FromEdges):
            own = result.get_submodule(name)
            compiled = CompiledNetwork(own, special, Store(folder), key(potential, name), compiling)
            result.set_submodule(name, compiled)
        elif compiling:
            say_not_from_edges(name, special)
    return result


class CompiledNetwork(nn.Module):
    """A network that runs compiled where it can, and otherwise as it is.

    Parameters
    ----------
    network
        The network; it has `phicalc.backbone.FromEdges.propagate`.
    special
        The same network in the form that is compiled.
    store
        Where functions are kept.
    name
        Beginning of their names.
    compiling
        Whether to compile those that are not there.
    """

    def __init__(
        self, network: nn.Module, special: nn.Module, store: Store, name: str, compiling: bool
    ):
        super().__init__()
        self.network, self.special = network, special
        self.store, self.name, self.compiling = store, name, compiling
        self.halves: dict[bool, _Halves | None] = {}

    def forward(
        self,
        embedding: Float[Tensor, "n_atoms channels"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Float[Tensor, "n_atoms n_columns"]:
        """Turn initial scalars of the atoms into invariant features of their surroundings."""
        assert graph.edge_of_slot is not None
        vectors = edge_vectors(graph)
        inputs = (embedding, element, vectors, graph.edge_index[1], graph.edge_of_slot)
        sizes = (graph.n_atoms, graph.n_edges, graph.edge_of_slot.shape[1])
        if min(sizes) < 2:  # compilers take such sizes for constants
            return _propagate(self.network, *inputs)
        kind = embedding.requires_grad
        if kind not in self.halves:
            self.halves[kind] = self._prepare(_excerpt([x.detach() for x in inputs]), kind)
        halves = self.halves[kind]
        if halves is None:
            return _propagate(self.network, *inputs)
        features: Tensor = _Compiled.apply(halves, *inputs)
        return features

    def _prepare(self, inputs: list[Shaped[Tensor, "..."]], kind: bool) -> "_Halves | None":
        """Load both functions, or compile them if that is wanted; None if there are none."""
        name = f"{self.name}-embedding" if kind else self.name
        wanted = (_EMBEDDING, _VECTORS) if kind else (_VECTORS,)

        def write(paths: list[Path]) -> None:
            _compile(self.special, inputs, wanted, paths)

        try:
            found = self.store.obtain(
                [f"{name}-{half}" for half in ("forward", "backward")],
                f"the network ({type(self.network).__name__})",
                write if self.compiling else None,
            )
            if found is None:
                return None
            halves = _Halves(found, wanted)
            _compare(halves, self.network, inputs, wanted)
        except Exception as error:  # compilers raise many kinds
            say_uncompiled(error)
            return None
        return halves


class _Halves:
    """Both functions, and the inputs with respect to which the second one differentiates."""

    def __init__(self, functions: Sequence[LoadedFunction], wanted: tuple[int, ...]):
        self.forward, self.backward = functions
        self.wanted = wanted


class _Compiled(Function):
    """The network as an operation that can be differentiated once."""

    @staticmethod
    def forward(
        ctx: Any, halves: _Halves, *inputs: Shaped[Tensor, "..."]
    ) -> Float[Tensor, "n_atoms n_columns"]:
        features, *kept = halves.forward(*inputs)
        ctx.halves = halves
        ctx.save_for_backward(*inputs, *kept)
        return features

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, cotangent: Float[Tensor, "n_atoms n_columns"]
    ) -> tuple[Float[Tensor, "..."] | None, ...]:
        gradients: list[Tensor | None] = [None] * (1 + len(_AXES))
        found = ctx.halves.backward(*ctx.saved_tensors, cotangent.contiguous())
        for index, gradient in zip(ctx.halves.wanted, found, strict=True):
            gradients[1 + index] = gradient
        return tuple(gradients)


def _excerpt(
    inputs: list[Shaped[Tensor, "..."]], n_atoms: int = 400
) -> list[Shaped[Tensor, "..."]]:
    """Take the first atoms and the edges among them: enough to compile and to compare."""
    embedding, element, vectors, neighbor, edge_of_slot = inputs
    table = edge_of_slot[:n_atoms]
    near = torch.cat([neighbor < n_atoms, torch.zeros_like(neighbor[:1], dtype=torch.bool)])
    inside = near[table]
    kept = table[inside]
    if len(kept) < 2:
        return inputs
    slots = torch.full_like(table, len(kept))
    slots[inside] = torch.arange(len(kept), device=table.device)
    return [embedding[:n_atoms], element[:n_atoms], vectors[kept], neighbor[kept], slots]


def _propagate(
    network: nn.Module, *inputs: Shaped[Tensor, "..."]
) -> Float[Tensor, "n_atoms n_columns"]:
    """Features of a network, from the vectors of the edges."""
    assert isinstance(network, FromEdges)
    return network.propagate(*inputs)


def _compile(
    network: nn.Module,
    inputs: list[Shaped[Tensor, "..."]],
    wanted: tuple[int, ...],
    paths: Sequence[Path],
) -> None:
    """Trace forward and backward together, cut between them, and compile both parts."""
    with torch.no_grad():
        cotangent = torch.randn_like(_propagate(network, *inputs))
    joint = trace(partial(_with_gradients, network, wanted), [*inputs, cotangent], in_place=False)
    forward, backward = cut(joint)
    features, *kept = forward(*inputs)
    open_axes = [symbolic_axes(node) for node in placeholders(backward)]
    compile_functions(
        {
            paths[1]: (backward, [*inputs, *kept, cotangent], open_axes),
            paths[0]: (forward, inputs, _AXES),
        }
    )


def _with_gradients(
    network: nn.Module, wanted: tuple[int, ...], *tensors: Shaped[Tensor, "..."]
) -> list[Float[Tensor, "..."]]:
    """Features, and derivatives of their product with the last of `tensors`."""
    *inputs, cotangent = tensors
    with torch.enable_grad():
        for index in wanted:
            inputs[index] = inputs[index].detach().requires_grad_()
        features = _propagate(network, *inputs)
        gradients = torch.autograd.grad(features, [inputs[i] for i in wanted], cotangent)
    return [features.detach(), *gradients]


def _compare(
    halves: _Halves,
    network: nn.Module,
    inputs: Sequence[Shaped[Tensor, "..."]],
    wanted: tuple[int, ...],
) -> None:
    """Refuse functions that are not the network, computed in double precision.

    Plain torch in single precision would be a bad judge: it errs more than compiled tables do.
    """
    features, *kept = halves.forward(*inputs)
    cotangent = torch.linspace(-1, 1, features.numel()).to(features).reshape(features.shape)
    found = [features, *halves.backward(*inputs, *kept, cotangent)]
    exact = [x.double() if x.is_floating_point() else x for x in (*inputs, cotangent)]
    expected = _with_gradients(copy.deepcopy(network).double(), wanted, *exact)
    for name, a, b in zip(("features", "gradients", "gradients"), found, expected, strict=False):
        error = float((a - b).abs().max() / b.abs().max().clamp(min=1e-3))
        if not error <= AGREEMENT[features.dtype]:
            raise ArithmeticError(f"compiled {name} differ by {error:.1e} from exact ones")
