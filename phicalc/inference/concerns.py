"""Reasons to doubt a result, and how a calculator voices them."""

import warnings
from collections.abc import Iterable
from typing import NamedTuple

from ase.calculators.calculator import CalculationFailed, InputError


class DomainWarning(UserWarning):
    """A structure is outside what the model was made for.

    Parameters
    ----------
    text
        One line that names the atoms and the reason.
    kind
        Kind of the reason.
    """

    def __init__(self, text: str, kind: str = ""):
        super().__init__(text, kind)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.args[0])


class DomainError(InputError, ValueError):
    """The same as an error, for strict calculators."""


class ImplausibleResultError(CalculationFailed):
    """Results that no structure has."""


class Concern(NamedTuple):
    """A reason to doubt the results for one structure."""

    kind: str
    """A calculator voices each kind once."""
    text: str
    """One line that names the atoms and the reason."""


class Voice:
    """Voices concerns: each kind once as a warning, or always as an error.

    Parameters
    ----------
    strict
        Raise in place of warning.
    """

    def __init__(self, strict: bool = False):
        self.strict = strict
        self._voiced: set[str] = set()

    def __call__(self, concerns: Iterable[Concern], stacklevel: int = 3) -> None:
        """Voice concerns that are new.

        Raises
        ------
        DomainError
            If strict, for the first of them.
        """
        for concern in concerns:
            if self.strict:
                raise DomainError(f"{concern.text} (an error because of strict=True)")
            if concern.kind not in self._voiced:
                self._voiced.add(concern.kind)
                warnings.warn(DomainWarning(concern.text, concern.kind), stacklevel=stacklevel)

    def forget(self) -> None:
        """Voice every kind again, as for another model."""
        self._voiced.clear()
