"""Calculators that know how uncertain their results are."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from jaxtyping import Float64, Shaped

from phicalc.calculators.locking import LockedCalculator, locked
from phicalc.calculators.requests import given_or_last
from phicalc.inference.uncertainty import Uncertainty
from phicalc.potential import Potential


class UncertainCalculator(LockedCalculator):
    """Calculator with standard deviations of its results, outside of ASE's names."""

    _uncertainty: Uncertainty | None = None

    @property
    @abstractmethod
    def why_certain(self) -> str:
        """Why there is no uncertainty, and what gives one; empty if there is one."""

    @property
    def deviations(self) -> Mapping[str, Shaped[np.ndarray, "..."] | float]:
        """Standard deviations of the last results, as files keep them; empty without any.

        ``energy_std`` (eV), ``energies_std`` (eV, each atom), ``forces_std`` (eV/Å, each atom).
        """
        return as_deviations(self._uncertainty)

    @property
    def last_distance(self) -> Float64[np.ndarray, " n_atoms"] | None:
        """Distance of each atom of the last structure from the training data; None if unknown."""
        return None if self._uncertainty is None else self._uncertainty.distance

    @locked
    def get_uncertainty(self, atoms: Atoms | None = None) -> Uncertainty:
        """Return the standard deviations of energy and forces, and which atoms are outside.

        Parameters
        ----------
        atoms
            The structure, by default that of the last calculation. It is computed if it changed
            since then; errors are those of `calculate`.

        Returns
        -------
        uncertainty
            ``energy_std`` in eV, ``energies_std`` of the atoms in eV, ``forces_std`` of the force
            on each atom in eV/Å (√ of the sum over components), ``outside``: which atoms are
            unlike all training data.

        Raises
        ------
        ase.calculators.calculator.PropertyNotImplementedError
            If the model has no uncertainty, or it is switched off.
        """
        if reason := self.why_certain:
            raise PropertyNotImplementedError(reason)
        self.get_property("energy", given_or_last(atoms, self.atoms))
        assert self._uncertainty is not None  # there is no reason why
        return self._uncertainty


def as_deviations(
    uncertainty: Uncertainty | None,
) -> dict[str, Shaped[np.ndarray, "..."] | float]:
    """Return standard deviations by the names that files have for them."""
    if uncertainty is None:
        return {}
    found: dict[str, Any] = uncertainty._asdict()
    return {name: value for name, value in found.items() if name.endswith("_std")}


def with_flags(uncertainty: Uncertainty | None) -> dict[str, Shaped[np.ndarray, "..."] | float]:
    """Return these, and which atoms are ``outside`` of the training data if that is known."""
    if uncertainty is None or uncertainty.distance is None:
        return as_deviations(uncertainty)
    return {**as_deviations(uncertainty), "outside": uncertainty.outside}


def why_certain(potential: Potential, wanted: bool) -> str:
    """Say why results of a potential have no uncertainty, and what gives them one; else nothing."""
    if potential.uncertainty is None:
        return (
            "this model has no uncertainty: `phicalc uncertainty MODEL` adds one from its training "
            "data (phicalc.training.add_uncertainty), and new trainings do so by themselves"
        )
    return "" if wanted else "the uncertainty is switched off: calc.set(uncertainty=True)"
