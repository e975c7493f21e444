"""Graphs as flat tables of tensors, as what records or compiles functions of tensors wants them."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from phicalc.graph.record import AtomicGraph, CoulombPlan, DispersionPlan, Fragments

#: Records within a graph, whose tensors have their names after a dot.
_RECORDS: dict[str, Any] = {
    "coulomb": CoulombPlan, "dispersion": DispersionPlan, "fragments": Fragments,
}  # fmt: skip


def flattened(graph: AtomicGraph) -> dict[str, Shaped[Tensor, "..."]]:
    """Return all tensors of a graph by name, those of its plans as ``coulomb.kvectors``."""
    found = {name: value for name, value in graph._asdict().items() if isinstance(value, Tensor)}
    for record in _RECORDS:
        if getattr(graph, record) is not None:
            parts = getattr(graph, record)._asdict().items()
            found |= {f"{record}.{name}": value for name, value in parts if value is not None}
    return found


def unflattened(tensors: Mapping[str, Shaped[Tensor, "..."]]) -> AtomicGraph:
    """Inverse of `flattened`."""
    own: dict[str, Any] = {name: value for name, value in tensors.items() if "." not in name}
    for record, kind in _RECORDS.items():
        start = f"{record}."
        parts = {n.removeprefix(start): x for n, x in tensors.items() if n.startswith(start)}
        if parts:
            own[record] = kind(**parts)
    return AtomicGraph(**own)
