"""What a backbone is: the protocol that every network for the features of atoms follows.

A backbone is a `torch.nn.Module` with the members of `Backbone`. It may live in any module:
``backbone: {name: package.module:Class, …}`` in a training file is all that makes phicalc use it.
More members are optional, and each makes something possible:

- `FromEdges` (``propagate``): compiled inference of structures that are not predicted as a whole
  (many atoms, slabs, batches); without it these run in plain torch.
- `Specializable` (``specialize``): operations that compile better than those of training.
- `Accelerated` (``accelerate``): native operations in compiled trainings.
- `Standardized` (``standardized_maps``): random weights whose signals have the same size in every
  layer; without it the weights stay as the constructor draws them.
- the attribute ``n_last``: how many of the features, the last ones, come from the last layer
  (``readout: last``); without it that is all of them (`last_features`).
- the setting ``layers``: the depth of the second network of ``feedback: network``.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.graph import AtomicGraph
from phicalc.kinds import Kind
from phicalc.plugins import find_class

#: Backbones that phicalc brings, by the name they have in configurations.
BACKBONES: Mapping[str, str] = {"nequip": "phicalc.backbone.nequip:NequIP"}


@runtime_checkable
class Backbone(Protocol):
    """A network that turns a graph into invariant features of every atom."""

    Settings: ClassVar[type[Any]]
    """Frozen dataclass of the hyper-parameters, each with a default: the keys beside ``name`` in
    the section ``backbone`` of a training file. Its ``__post_init__`` raises `ValueError`."""
    n_features: int
    """Invariant columns that `forward` returns."""

    @classmethod
    def input_width(cls, settings: Any) -> int:
        """Columns of the embedding that `forward` of a backbone with these settings takes."""
        ...

    @classmethod
    def from_settings(
        cls,
        settings: Any,
        *,
        elements: tuple[str, ...],
        cutoff: float,
        average_neighbors: float,
        vectors: bool = False,
    ) -> "Backbone":
        """Make a backbone with random weights.

        Parameters
        ----------
        settings
            Of the type `Settings`.
        elements
            Chemical symbols of the elements, which `forward` counts from 0.
        cutoff
            Longest edge in Å.
        average_neighbors
            Mean number of edges per atom in the training data.
        vectors
            Whether `forward` returns a vector for each atom as well.

        Raises
        ------
        ValueError
            If this backbone cannot be made with these settings, or cannot return vectors.
        """
        ...

    def forward(
        self,
        embedding: Float[Tensor, "n_atoms n_inputs"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Float[Tensor, "n_atoms n_columns"]:
        """Return invariant features of every atom, in the dtype of `embedding`.

        With ``vectors`` three more columns follow: x, y and z of a vector that turns with the
        structure. Features must be smooth in the positions, and an edge must fade out at the
        cutoff. `graph` gives positions and vectors in Å (`phicalc.graph.edge_vectors`), always in
        float64.
        """
        ...


@runtime_checkable
class FromEdges(Protocol):
    """A backbone that sees nothing of a structure but its elements and the vectors of its edges."""

    def propagate(
        self,
        embedding: Float[Tensor, "n_atoms n_inputs"],
        element: Int64[Tensor, " n_atoms"],
        vectors: Float64[Tensor, "n_edges 3"],
        neighbor: Int64[Tensor, " n_edges"],
        edge_of_slot: Int64[Tensor, "n_atoms n_slots"],
    ) -> Float[Tensor, "n_atoms n_columns"]:
        """Return what `Backbone.forward` returns.

        Parameters
        ----------
        embedding
            Initial scalars of the atoms.
        element
            Their elements, counted from 0.
        vectors
            From the centre of each edge to its neighbour, in Å.
        neighbor
            The neighbour of each edge.
        edge_of_slot
            The edges of each centre as a padded table; ``n_edges`` marks an empty slot.
        """
        ...


@runtime_checkable
class Specializable(Protocol):
    """A module with a form that compiles better."""

    def specialize(self) -> None:
        """Switch, in place, to that form; the results stay the same to rounding."""
        ...


@runtime_checkable
class Accelerated(Protocol):
    """A module that can make use of native operations (`phicalc.backbone.native`)."""

    def accelerate(self) -> None:
        """Use them where this process has them; the results stay the same to rounding."""
        ...


@runtime_checkable
class Standardized(Protocol):
    """A module whose random weights are to be brought to the scale of the training data."""

    def standardized_maps(self) -> Iterator[tuple[nn.Module, float]]:
        """Yield linear maps, in the order in which they act, and the size of their outputs.

        A map is an `phicalc.nn.EquivariantLinear`, or any module whose output is proportional to
        its parameters (`torch.nn.Linear`, `phicalc.nn.Linear`). The size is the root mean square
        that its outputs will have on the training data.
        """
        ...


class BackboneKind(Kind):
    """Section ``backbone`` of a potential's settings: name and options."""

    what = "backbone"
    known = BACKBONES
    members = ("Settings", "input_width", "from_settings", "forward")


def backbone_class(name: str, *, allow_import: bool) -> type[Any]:
    """Return the class of a backbone.

    Parameters
    ----------
    name
        A key of `BACKBONES`, or an import path ``package.module:Class``.
    allow_import
        Whether import paths are allowed; see `phicalc.plugins.find_class`.

    Raises
    ------
    ValueError
        If there is no such class, it may not be imported, or it is no backbone.
    """
    found = find_class(name, BACKBONES, allow_import=allow_import, kind="backbone")
    # Classes show `n_features` in their instances only: see `check_backbone`.
    members = ("Settings", "input_width", "from_settings", "forward")
    missing = [each for each in members if not hasattr(found, each)]
    if not issubclass(found, nn.Module) or missing:
        problem = f"it has no {', '.join(missing)}" if missing else "it is no torch.nn.Module"
        raise ValueError(
            f"{name!r} is no backbone: {problem}. phicalc.backbone.protocol.Backbone lists what a "
            "backbone has"
        )
    return found


def check_backbone(backbone: object) -> None:
    """Refuse an object without the members of a backbone.

    Raises
    ------
    ValueError
        Naming what is missing.
    """
    if isinstance(backbone, nn.Module) and isinstance(backbone, Backbone):
        return
    members = ("Settings", "input_width", "from_settings", "n_features", "forward")
    missing = [name for name in members if not hasattr(backbone, name)] or ["torch.nn.Module"]
    raise ValueError(
        f"{type(backbone).__name__} is no backbone: it lacks {', '.join(missing)}. "
        "phicalc.backbone.protocol.Backbone lists what a backbone has"
    )


def last_features(backbone: nn.Module) -> int:
    """Return how many of the features, the last ones, come from the last layer."""
    n_last = getattr(backbone, "n_last", backbone.n_features)
    assert isinstance(n_last, int)
    return n_last


def backbones_of(module: nn.Module) -> dict[str, nn.Module]:
    """Return the backbones inside a module by their names, without those inside of others."""
    found: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and _is_backbone(part):
            found[name] = part
    return found


def _is_backbone(module: nn.Module) -> bool:
    """Whether a module follows the protocol."""
    return isinstance(module, Backbone)
