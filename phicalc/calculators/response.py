"""Properties of the charges that ASE has no names for, as methods of a calculator."""

from abc import abstractmethod

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from phicalc.calculators.locking import LockedCalculator, locked
from phicalc.graph import AtomicGraph
from phicalc.potential import Potential
from phicalc.response import (
    born_effective_charges,
    dielectric_tensor,
    electrode_potentials,
    electrostatic_potential,
    polarizability,
)


class ResponsiveCalculator(LockedCalculator):
    """Calculator with Born charges, polarizabilities and electrostatic potentials."""

    @property
    @abstractmethod
    def potential(self) -> Potential:
        """The potential."""

    @abstractmethod
    def _prepared_graph(self, atoms: Atoms | None) -> AtomicGraph:
        """Return the graph of a structure, or of the last one."""

    @locked
    def get_born_effective_charges(
        self, atoms: Atoms | None = None
    ) -> Float64[np.ndarray, "n_atoms 3 3"]:
        """Born effective charges ``∂μ_α/∂r_iβ`` in e.

        See `phicalc.response.born_effective_charges`; other errors are those of `calculate`.

        Raises
        ------
        ase.calculators.calculator.PropertyNotImplementedError
            For models without charges or with the head ``spectral``, and for charge equilibration
            along periodic axes, where they would depend on the size of the cell.
        """
        graph = self._prepared_graph(atoms)
        return born_effective_charges(self.potential, graph).cpu().numpy()

    @locked
    def get_electrode_potentials(
        self, atoms: Atoms | None = None
    ) -> Float64[np.ndarray, " n_atoms"]:
        """Potential in V of the reservoir that each atom is in equilibrium with.

        See `phicalc.response.electrode_potentials`; other errors are those of `calculate`.

        Raises
        ------
        ase.calculators.calculator.PropertyNotImplementedError
            For models without charges that sum to the total charge.
        """
        graph = self._prepared_graph(atoms)
        return electrode_potentials(self.potential, graph).cpu().numpy()

    @locked
    def get_polarizability(self, atoms: Atoms | None = None) -> Float64[np.ndarray, "3 3"]:
        """Polarizability ``∂μ_α/∂E_β`` in e Å²/V; with periodic axes, of one cell.

        See `phicalc.response.polarizability`; other errors are those of `calculate`.

        Raises
        ------
        ase.calculators.calculator.PropertyNotImplementedError
            For models whose charges do not respond to a field or do not minimize the whole
            energy; with periodic axes also for those whose charge does not flow along links.
        """
        graph = self._prepared_graph(atoms)
        return polarizability(self.potential, graph).cpu().numpy()

    @locked
    def get_dielectric_tensor(self, atoms: Atoms | None = None) -> Float64[np.ndarray, "3 3"]:
        """High-frequency dielectric tensor ε∞ of a crystal, no unit.

        See `phicalc.response.dielectric_tensor`; other errors are those of `calculate`.

        Raises
        ------
        ase.calculators.calculator.PropertyNotImplementedError
            For structures with open axes, and for models whose charge does not flow along links.
        """
        graph = self._prepared_graph(atoms)
        return dielectric_tensor(self.potential, graph).cpu().numpy()

    @locked
    def get_electrostatic_potential(
        self, atoms: Atoms | None = None
    ) -> Float64[np.ndarray, " n_atoms"]:
        """Electrostatic potential at each atom in V, that of its own charge included.

        Errors are those of `calculate`.

        Raises
        ------
        ase.calculators.calculator.PropertyNotImplementedError
            For models without charges.
        """
        graph = self._prepared_graph(atoms)
        return electrostatic_potential(self.potential, graph).cpu().numpy()
