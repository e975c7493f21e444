"""Starting charges: formal charges, and what has flowed along links before any field drives it."""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.formal import FormalCharges
from phicalc.electrostatics.charges.increments import BondIncrements, Increments
from phicalc.electrostatics.charges.links import LinkFinder, Links
from phicalc.electrostatics.head import Formal, Polarization, Surroundings
from phicalc.graph import AtomicGraph
from phicalc.schema import Positive, checked, settings


@settings
@dataclass(frozen=True)
class StartingSettings:
    """Settings of starting charges."""

    formal_charges: Literal["environment", "element"] = "environment"
    """Whether formal charges depend on the environment of an atom, or on its element only."""
    link_range: Annotated[float, Positive] = 1.75
    """Length of the longest link in sums of the covalent radii of both atoms; none is longer
    than the cutoff."""
    electronegativity_range: Annotated[float, Positive] = 5.0
    """Largest difference in eV/e between atoms of one element, to either side."""

    def __post_init__(self) -> None:
        """Check words, types and ranges."""
        checked(self)

    @property
    def polarize_cells(self) -> bool:
        """Whether fields may point along periodic axes: formal charges must not move there."""
        return self.formal_charges == "element"


class Starting(NamedTuple):
    """Starting charges of a batch, and what they are made of."""

    charges: Float64[Tensor, " n_atoms"]
    """``z + Σ p⁰`` in e."""
    formal: Formal
    """With z."""
    links: Links
    """Where charge may flow."""
    increments: Increments
    """p⁰."""

    def polarization(self) -> Polarization:
        """Return formal charges (e) where the atoms are, and dipoles (e·Å) of the increments."""
        return Polarization(self.formal.charges, self.increments.dipoles())


class StartingCharges(nn.Module):
    """Node features → charges ``z + Σ p⁰``; each molecule keeps the sum of its formal charges z.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    settings
        See `StartingSettings`.
    """

    def __init__(self, surroundings: Surroundings, settings: StartingSettings):
        super().__init__()
        environment = settings.formal_charges == "environment"
        self.formal = FormalCharges(surroundings, environment)
        self.links = LinkFinder(surroundings, settings.link_range)
        self.increments = BondIncrements(surroundings, settings.electronegativity_range)

    def prepare(self, graph: AtomicGraph, element: Int64[Tensor, " n_atoms"]) -> AtomicGraph:
        """Return the graph with the numbers of the edges that are links."""
        return graph._replace(links=self.links.chosen(graph, element))

    def states(self, element: Int64[Tensor, " n_atoms"], graph: AtomicGraph) -> Formal:
        """Return the formal charges of a batch that has been prepared."""
        return self.formal(element, graph, self.links(graph, element))

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Starting:
        """Return the starting charges of a batch that has been prepared."""
        links = self.links(graph, element)
        formal = self.formal(element, graph, links)
        increments = self.increments(node_features, element, graph, links)
        return Starting(increments.added_to(formal.charges), formal, links, increments)
