"""The record of what training data covered, as the card of a model keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from ase.data import atomic_numbers

from phicalc.elements import symbols_of_pair
from phicalc.schema import Ascending, AtLeast, Positive, build, checked, settings, to_plain

#: Entry of ``ModelCard.data`` that holds the record.
ENTRY = "domain"

_Range = Annotated[tuple[float, float], Ascending]


@settings
@dataclass(frozen=True)
class Domain:
    """What training data covered; None where nobody knows.

    Raises
    ------
    ValueError
        For an entry of the wrong type or out of range, and for names that are no elements.
    """

    frames: Annotated[int, AtLeast(1)] | None = None
    """Number of frames."""
    source: str = ""
    """Which frames these are, if not the training frames."""
    elements: tuple[str, ...] | None = None
    """Symbols in the order of the atomic numbers."""
    environments: tuple[str, ...] | None = None
    """Atoms with those that they are bonded to, such as ``C(HHHC)``, see
    `phicalc.domain.environments`."""
    nearest_distances: dict[str, Annotated[float, Positive]] | None = None
    """Smallest distance in Å of each pair of elements within the cutoff, such as ``H-O``."""
    charges: _Range | None = None
    """Smallest and largest total charge in e."""
    periodic: bool | None = None
    """Whether there were structures with periodic directions."""
    isolated: bool | None = None
    """Whether there were structures without periodic directions."""
    closed_shell: bool | None = None
    """Whether all structures had an even number of electrons."""
    stress: bool | None = None
    """Whether stress was trained."""
    densities: _Range | None = None
    """Smallest and largest density in g/cm³ of structures periodic in three directions."""
    largest_force: Annotated[float, AtLeast(0)] | None = None
    """Largest force on an atom in eV/Å."""
    largest_charge: Annotated[float, AtLeast(0)] | None = None
    """Largest charge of an atom, either sign, in e."""
    temperatures: _Range | None = None
    """Smallest and largest ``info["temperature"]`` of the frames, in K."""

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)
        named = set(self.elements or ())
        for pair in self.nearest_distances or {}:
            named.update(symbols_of_pair(pair))
        if unknown := sorted(named - set(atomic_numbers)):
            raise ValueError(f"{', '.join(unknown)}: no chemical symbols")

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Domain":
        """Read the record from the entry ``data`` of a card; a card without one knows nothing.

        Raises
        ------
        ValueError
            For unknown keys and values that do not fit.
        """
        return build(cls, data.get(ENTRY), f"data.{ENTRY}")

    def to_dict(self) -> dict[str, Any]:
        """Return what is known as a dictionary that JSON can hold."""
        values: dict[str, Any] = to_plain(self)
        return {name: value for name, value in values.items() if value not in (None, "")}
