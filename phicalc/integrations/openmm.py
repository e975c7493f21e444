"""A potential for OpenMM-ML: dynamics of whole systems, and of parts within a force field.

OpenMM-ML imports this module while it is being imported itself. Therefore classes here have the
methods of its base classes, but do not derive from them; torch, and its own potential for ASE
calculators, which does the work, are imported when they are needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openmm import System
    from openmm.app import Topology

    from phicalc.calculators.phicalculator import PhiCalculator


class PhiPotentialFactory:
    """What OpenMM-ML finds under the name ``phicalc`` (entry point ``openmmml.potentials``)."""

    def createImpl(self, name: str, model: Any = None, **args: Any) -> PhiPotential:
        """Return the potential for ``MLPotential("phicalc", model="water-small")``.

        Parameters
        ----------
        name
            ``phicalc``.
        model
            Name or folder of a model, or a `PhiCalculator`.
        **args
            Options of `PhiCalculator`, such as ``dtype``, ``device``, ``total_charge``.

        Raises
        ------
        ValueError
            Without a model.
        """
        if model is None:
            raise ValueError('give a model: MLPotential("phicalc", model="water-small")')
        make = import_module("phicalc.calculators.phicalculator").PhiCalculator
        return PhiPotential(model if isinstance(model, make) else make(model, **args))


class PhiPotential:
    """Adds the forces of a calculator to a system of OpenMM.

    >>> from openmmml import MLPotential  # doctest: +SKIP
    >>> potential = MLPotential("phicalc", model="water-small")  # doctest: +SKIP
    >>> system = potential.createSystem(topology)  # doctest: +SKIP
    >>> mixed = potential.createMixedSystem(topology, mm_system, atoms)  # doctest: +SKIP

    In a mixed system the given atoms interact with each other through phicalc, and with all others
    through the force field (mechanical embedding).

    Parameters
    ----------
    calculator
        For all atoms of the system, or for those of the part.
    """

    def __init__(self, calculator: PhiCalculator):
        self.calculator = calculator

    def addForces(
        self,
        topology: Topology,
        system: System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **info: Any,
    ) -> None:
        """Add one force; `info` is what the calculator looks for in ``atoms.info``.

        Raises
        ------
        ValueError
            For a topology with sites that have no element.
        """
        chosen = None if atoms is None else list(atoms)
        by_ase = import_module("openmmml.models.asepotential").ASEPotentialImpl("ase")
        by_ase.addForces(
            topology, system, chosen, forceGroup, calculator=self.calculator, info=info
        )

    def getSupportedEmbeddings(self) -> list[str]:
        """Return embeddings of our own: none beside the mechanical one of OpenMM-ML."""
        return []

    def getMLLongRange(self) -> bool:
        """Return whether atoms interact beyond the cutoff: Coulomb's law between images."""
        return bool(self.calculator.potential.head.has_coulomb)
