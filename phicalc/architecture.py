"""Settings of a potential: everything that defines it except its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ase.data import atomic_numbers

from phicalc.backbone import BackboneKind
from phicalc.electrostatics.head import HeadKind
from phicalc.feedback import FeedbackKind
from phicalc.schema import Positive, build, checked, settings, to_plain


@settings
@dataclass(frozen=True)
class PotentialConfig:
    """Everything that defines a potential except its weights.

    ``backbone``, ``head`` and ``feedback`` are sections that name a class and its options:
    ``head="qeq"``, ``head={"name": "qeq", "hardness": "environment"}``. The import path
    ``"package.module:Class"`` of a class outside phicalc is a name, too.

    Raises
    ------
    ValueError
        For unknown words, wrong types, values out of range, and options that contradict each other.
    """

    elements: tuple[str, ...]
    """Chemical symbols the potential knows."""
    cutoff: Annotated[float, Positive] = 4.5
    """Cutoff of the network's edges in Å."""
    backbone: BackboneKind = BackboneKind.from_settings("nequip")
    """Network that turns a graph into features of the atoms; see `phicalc.backbone`."""
    readout: Literal["all", "last"] = "all"
    """Layers whose scalars the non-linear readout of the energy sees; the linear one sees all."""
    head: HeadKind = HeadKind.from_settings("qeq")
    """Electrostatic head; see `phicalc.electrostatics.head`."""
    feedback: FeedbackKind = FeedbackKind.from_settings("none")
    """How charges enter the short-range energy: ``none``, ``embedding`` (in its readout) or
    ``network`` (by a second network)."""
    repulsion: Literal["none", "zbl"] = "none"
    """Screened repulsion of nuclei (Ziegler, Biersack and Littmark) below the sum of the covalent
    radii: a wall at distances shorter than those of any training data."""
    dispersion: Literal["none", "learned"] = "none"
    """Attraction as 1/r⁶ beyond the cutoff, summed over all atoms and images: its coefficients are
    those of free atoms times a factor that is learned."""
    total_charge_embedding: bool = False
    """Whether the network's input contains the total charge per atom of a structure."""
    atomic_dipoles: bool = False
    """Whether atomic dipoles, read from vectors in the last layer, add to the dipole moment.
    They enter the energy only as ``−E·μ`` in an external field."""
    average_neighbors: Annotated[float, Positive] = 30.0
    """Mean number of edges per atom in the training data."""
    energy_scale: Annotated[float, Positive] = 1.0
    """Energy in eV that one unit of network output stands for (force RMS of the data)."""
    reference_energies: tuple[float, ...] = ()
    """Energy in eV of each element, subtracted before training; empty means zeros."""

    def __post_init__(self) -> None:
        """Check every value, and that they go together."""
        checked(self)
        unknown = [symbol for symbol in self.elements if symbol not in atomic_numbers]
        if unknown or not self.elements or len(set(self.elements)) < len(self.elements):
            raise ValueError(f"elements must be distinct chemical symbols, got {self.elements}")
        if not self.reference_energies:
            object.__setattr__(self, "reference_energies", (0.0,) * len(self.elements))
        if len(self.reference_energies) != len(self.elements):
            raise ValueError(
                f"reference_energies needs one number for each of {self.elements}, "
                f"got {len(self.reference_energies)}"
            )
        if not self.head.implementation.has_charges:
            self._check_without_charges()

    def _check_without_charges(self) -> None:
        """Refuse what needs charges."""
        if self.feedback.name != "none" or self.atomic_dipoles:
            raise ValueError(
                f"feedback and atomic_dipoles need a head with charges, got "
                f"head={self.head.name!r}; choose another head or leave them out"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain types only, ready for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PotentialConfig":
        """Return the settings that `to_dict` wrote.

        Raises
        ------
        ValueError
            For unknown keys (a model of a later version, or a typing error) and wrong values.
        """
        return build(cls, values)
