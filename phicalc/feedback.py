"""Charge feedback: how charges enter the short-range energy."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.graph import AtomicGraph, mean_per_structure
from phicalc.kinds import Kind, NoSettings
from phicalc.nn import Linear
from phicalc.schema import AtLeast, checked, settings

#: Short names of the ways in which charges can enter.
FEEDBACKS = {
    "none": "phicalc.feedback:NoFeedback",
    "embedding": "phicalc.feedback:ChargeEmbedding",
    "network": "phicalc.feedback:ChargeNetwork",
}


class FirstNetwork(NamedTuple):
    """Facts about the backbone of a potential that its feedback is built from."""

    n_inputs: int
    """Width of the initial scalars of the atoms."""
    n_features: int
    """Width of the features."""
    settings: Any
    """Settings of the backbone."""
    make: Callable[[Any], Any]
    """Returns another backbone of the same class, from other settings."""


class Feedback(nn.Module, ABC):
    """Turns features and charges of the atoms into the features that the energy is read from."""

    Settings: ClassVar[type[Any]] = NoSettings
    """Frozen dataclass of the options beside ``name`` in the section ``feedback``."""

    uses_charges: ClassVar[bool] = True
    """Whether the short-range energy depends on the charges."""
    n_features: int
    """Width of the features that come out."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Any, network: FirstNetwork) -> "Feedback":
        """Return a module with random weights for the features of a network."""

    @abstractmethod
    def forward(
        self,
        features: Float[Tensor, "n_atoms c"],
        embedding: Float[Tensor, "n_atoms channels"],
        charges: Float64[Tensor, " n_atoms"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Float[Tensor, "n_atoms c_out"]:
        """Return the features that the short-range energy is read from; charges are in e."""


class NoFeedback(Feedback):
    """Leaves the features as they are."""

    uses_charges = False

    def __init__(self, n_features: int):
        super().__init__()
        self.n_features = n_features

    @classmethod
    def from_settings(cls, settings: Any, network: FirstNetwork) -> "Feedback":
        """Return the module; it has no weights."""
        return cls(network.n_features)

    def forward(
        self,
        features: Float[Tensor, "n_atoms c"],
        embedding: Float[Tensor, "n_atoms channels"],
        charges: Float64[Tensor, " n_atoms"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Float[Tensor, "n_atoms c"]:
        """Return `features`; charges in e are ignored."""
        return features


class ChargeEmbedding(Feedback):
    """Adds a linear image of an atom's charge and of the mean charge to its features.

    The mean over the structure, not the total, makes the energy of a repeated cell extensive.
    """

    def __init__(self, n_features: int):
        super().__init__()
        self.n_features = n_features
        self.linear = Linear(2, n_features)

    @classmethod
    def from_settings(cls, settings: Any, network: FirstNetwork) -> "Feedback":
        """Return a module with random weights."""
        return cls(network.n_features)

    def forward(
        self,
        features: Float[Tensor, "n_atoms c"],
        embedding: Float[Tensor, "n_atoms channels"],
        charges: Float64[Tensor, " n_atoms"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Float[Tensor, "n_atoms c"]:
        """Return features updated by the charges (e); `embedding` and `element` are not needed."""
        mean_charge = mean_per_structure(charges, graph)[graph.batch]
        both = torch.stack([charges, mean_charge], dim=1)
        return features + self.linear(both.to(features))


class ChargeNetwork(Feedback):
    """Second network, whose input is the element and the charge of each atom (NequIP-LR).

    Charges are expanded in n Gaussians ``exp(−(q − μ_k)²/w²)``, w = (μ_n − μ_1)/n.

    Parameters
    ----------
    network
        The network itself.
    n_inputs
        Width of the initial scalars that it takes.
    settings
        See `Settings`.

    References
    ----------
    Maruf et al., arXiv:2503.17949.
    """

    @settings
    @dataclass(frozen=True)
    class Settings:
        """Settings of the second network.

        Raises
        ------
        ValueError
            For a wrong type, a value out of range, or a `charge_range` that does not increase.
        """

        layers: Annotated[int, AtLeast(1)] = 1
        """Layers of the second network; its other options are those of the first."""
        charge_basis: Annotated[int, AtLeast(1)] = 16
        """Gaussians in which a charge is expanded."""
        charge_range: tuple[float, float] = (-1.0, 1.0)
        """Centers of the first and the last Gaussian in e. The network does not see charges far
        outside: use what the labels, or formal charges, reach."""

        def __post_init__(self) -> None:
            """Check types and ranges."""
            checked(self)
            low, high = self.charge_range
            if not low < high:
                raise ValueError(
                    f"charge_range must be two increasing numbers (e), got {low} and {high}"
                )

    centers: Tensor

    def __init__(self, network: Any, n_inputs: int, settings: Settings):
        super().__init__()
        low, high = settings.charge_range
        self.width = (high - low) / settings.charge_basis
        centers = torch.linspace(low, high, settings.charge_basis, dtype=torch.float64)
        self.register_buffer("centers", centers, persistent=False)
        self.linear = Linear(n_inputs + settings.charge_basis, n_inputs)
        self.network = network
        self.n_features = network.n_features

    @classmethod
    def from_settings(cls, settings: Any, network: FirstNetwork) -> "Feedback":
        """Return a module with random weights.

        Raises
        ------
        ValueError
            If the backbone has no setting ``layers``.
        """
        if "layers" not in {field.name for field in fields(network.settings)}:
            raise ValueError(
                "feedback 'network' needs a backbone with the setting 'layers', and "
                f"{type(network.settings).__name__} has none; use feedback 'embedding'"
            )
        second = replace(network.settings, layers=settings.layers)
        return cls(network.make(second), network.n_inputs, settings)

    def forward(
        self,
        features: Float[Tensor, "n_atoms c"],
        embedding: Float[Tensor, "n_atoms channels"],
        charges: Float64[Tensor, " n_atoms"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Float[Tensor, "n_atoms c_out"]:
        """Return features of the second network, which sees the charges (e) and the elements."""
        distance = (charges[:, None] - self.centers) / self.width
        expansion = torch.exp(-(distance**2)).to(features)
        inputs = self.linear(torch.cat([embedding, expansion], dim=1))
        return self.network(inputs, element, graph)


class FeedbackKind(Kind):
    """Section ``feedback`` of a potential's settings: name and options."""

    what = "feedback"
    known = FEEDBACKS
    base = Feedback
