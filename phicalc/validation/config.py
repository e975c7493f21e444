"""Settings of a validation."""

from dataclasses import dataclass
from typing import Annotated, Any

from phicalc.labelling import CalculatorSpec
from phicalc.schema import AtLeast, Positive, checked, settings, to_plain

#: Settings that choose what is run, not what comes out.
_CHOICES = ("quick", "only", "skip", "limit_minutes")


@settings
@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Which checks run, and how.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    quick: bool = False
    """Run only what takes seconds: no long dynamics, no crystals' properties."""
    only: tuple[str, ...] = ()
    """Names of the checks to run; all if empty."""
    skip: tuple[str, ...] = ()
    """Names of checks to leave out."""
    limit_minutes: Annotated[float, Positive] | None = None
    """Start no check after so many minutes; the next run goes on."""
    reference: CalculatorSpec | None = None
    """Calculator to compare curves with; the checks that know experiments need none."""
    temperature: Annotated[float, Positive] = 300.0
    """Temperature in K of dynamics of liquids and crystals."""
    highest_temperature: Annotated[float, Positive] | None = None
    """Highest temperature in K that the model is claimed to stand; if not given, the highest of
    the training data, or half as much again as `temperature`."""
    timestep: Annotated[float, Positive] = 0.5
    """Time step of dynamics in fs."""
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        values: dict[str, Any] = to_plain(self)
        return values

    def physics(self) -> dict[str, Any]:
        """Return those settings that enter results."""
        return {name: value for name, value in self.to_dict().items() if name not in _CHOICES}
