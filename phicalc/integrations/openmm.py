"""A potential for OpenMM-ML: dynamics of whole systems, and of parts within a force field.

OpenMM-ML imports this module while it is being imported itself. Therefore classes here have the
methods of its base classes, but do not derive from them, and torch waits until a model is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from ase import Atoms
from ase.units import kJ, mol, nm
from jaxtyping import Float64
from openmm import unit
from openmm.app import Topology

if TYPE_CHECKING:
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

    In a mixed system the atoms that are given have our energy among themselves, and that of the
    force field with all others (mechanical embedding).

    Parameters
    ----------
    calculator
        For all atoms of the system, or those of the part.
    """

    def __init__(self, calculator: PhiCalculator):
        self.calculator = calculator

    def addForces(
        self,
        topology: Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **info: Any,
    ) -> None:
        """Add one force; `info` is what the calculator looks for in ``atoms.info``.

        Raises
        ------
        ValueError
            For atoms without an element.
        """
        chosen = None if atoms is None else list(atoms)
        elements = [atom.element for atom in topology.atoms()]
        if chosen is not None:
            elements = [elements[i] for i in chosen]
        if None in elements:
            raise ValueError("every atom of the topology needs an element")
        periodic = topology.getPeriodicBoxVectors() is not None
        structure = Atoms([element.atomic_number for element in elements], pbc=periodic)
        structure.info, structure.calc = info, self.calculator
        force = openmm.PythonForce(_Evaluation(structure))
        force.setForceGroup(forceGroup)
        force.setUsesPeriodicBoundaryConditions(periodic)
        if chosen is not None:
            force.setParticles(chosen)
        system.addForce(force)

    def getSupportedEmbeddings(self) -> list[str]:
        """Return embeddings of our own: none beside the mechanical one of OpenMM-ML."""
        return []

    def getMLLongRange(self) -> bool:
        """Return whether atoms interact beyond the cutoff: Coulomb's law between images."""
        return bool(self.calculator.potential.head.has_coulomb)


class _Evaluation:
    """What OpenMM calls in each step.

    Parameters
    ----------
    atoms
        Changed in place.
    """

    def __init__(self, atoms: Atoms):
        self.atoms = atoms

    def __call__(self, state: openmm.State) -> tuple[float, Float64[np.ndarray, "n_atoms 3"]]:
        """Return the energy in kJ/mol and forces in kJ/mol/nm."""
        if self.atoms.pbc.any():
            box = state.getPeriodicBoxVectors(asNumpy=True)
            self.atoms.set_cell(box.value_in_unit(unit.angstrom))
        self.atoms.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        energy, forces = self.atoms.get_potential_energy(), self.atoms.get_forces()
        return energy / (kJ / mol), forces / (kJ / mol / nm)
