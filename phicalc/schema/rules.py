"""Ranges and other demands on the value of a field, written into its annotation.

``Annotated[int, AtLeast(1)]`` is a whole number from 1 up. The type is checked first, so a rule
sees a value of the right type.
"""

from dataclasses import dataclass
from typing import Any, Literal


class Rule:
    """A demand on one value. `words` completes the sentence "'lr' must …"."""

    words: str

    def admits(self, value: Any) -> bool:
        """Return whether the value meets the demand."""
        raise NotImplementedError


@dataclass(frozen=True)
class Between(Rule):
    """Numbers from `low` to `high`; `ends` says, as intervals do, which ends are included."""

    low: float | int
    high: float | int
    ends: Literal["[]", "[)", "(]", "()"] = "[]"
    unit: str = ""
    """Unit that the message names."""

    @property
    def words(self) -> str:  # type: ignore[override]
        """The interval, as in "be in [0, 1)"."""
        opening, closing = self.ends
        unit = f" {self.unit}" if self.unit else ""
        return f"be in {opening}{self.low:g}, {self.high:g}{closing}{unit}"

    def admits(self, value: float | int) -> bool:
        """Return whether the number lies in the interval."""
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        below = value <= self.high if self.ends[1] == "]" else value < self.high
        return above and below


@dataclass(frozen=True)
class AtLeast(Rule):
    """Numbers from `low` up."""

    low: float | int

    @property
    def words(self) -> str:  # type: ignore[override]
        """The bound, as in "be ≥ 1"."""
        return f"be ≥ {self.low:g}"

    def admits(self, value: float | int) -> bool:
        """Return whether the number reaches the bound."""
        return value >= self.low


class _Positive(Rule):
    words = "be positive"

    def admits(self, value: float | int) -> bool:
        return value > 0


class _Even(Rule):
    words = "be even"

    def admits(self, value: int) -> bool:
        return value % 2 == 0


class _NotEmpty(Rule):
    words = "not be empty"

    def admits(self, value: Any) -> bool:
        return len(value) > 0


class _Distinct(Rule):
    words = "not repeat an entry"

    def admits(self, value: Any) -> bool:
        return len(set(value)) == len(value)


class _Ascending(Rule):
    words = "be in ascending order"

    def admits(self, value: tuple[float, ...]) -> bool:
        return list(value) == sorted(value)


class _NonFinite(Rule):
    words = "be a number"

    def admits(self, value: float | int) -> bool:
        return True


#: Numbers above zero.
Positive = _Positive()
#: Even whole numbers.
Even = _Even()
#: Texts, lists and sections with something in them.
NotEmpty = _NotEmpty()
#: Lists without repetitions.
Distinct = _Distinct()
#: Lists of numbers none of which is below the one before.
Ascending = _Ascending()
#: Admits infinities and NaN, which every other number refuses.
NonFinite = _NonFinite()
