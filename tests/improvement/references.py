"""Reference calculators, good and bad, that cost nothing."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from phicalc.labelling import CalculatorSpec


class Springs(Calculator):
    """A spring between every two atoms, as stiff as a bond, or with a fault.

    Parameters
    ----------
    energy_unit, force_unit
        What energies (eV) and forces (eV/Å) are divided by.
    fault
        ``crash``, ``hang`` or ``nan``, for structures with two atoms nearer than 1 Å; ``always``
        for all.
    """

    implemented_properties = ["energy", "forces"]

    def __init__(self, energy_unit: float = 1.0, force_unit: float = 1.0, fault: str = ""):
        super().__init__()
        self.units, self.fault = (energy_unit, force_unit), fault

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = 0.0, np.zeros((len(atoms), 3))
        for i in range(len(atoms)):
            for j in range(i):
                vector = atoms.positions[i] - atoms.positions[j]
                length = np.linalg.norm(vector)
                self._fail_at(length)
                excess = min(length, 1.6) - 1.2  # stiff as N–N, and broken beyond 1.6 Å
                energy += 20.0 * excess**2
                if length < 1.6:
                    pull = 40.0 * excess * vector / length
                    forces[i] -= pull
                    forces[j] += pull
        if self.fault == "nan" and self.results.pop("near", False):
            energy = np.nan
        self.results = {"energy": energy / self.units[0], "forces": forces / self.units[1]}

    def _fail_at(self, length: float) -> None:
        if self.fault == "always":
            raise ZeroDivisionError("no density")
        if length >= 1.0:
            return
        if self.fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self.fault == "hang":
            time.sleep(600)
        self.results["near"] = True


def springs(**arguments) -> CalculatorSpec:
    return CalculatorSpec("tests.improvement.references:Springs", arguments)


def chain() -> Atoms:
    """Three nitrogen atoms in an open triangle, near their minimum."""
    return Atoms("N3", [[0, 0, 0], [1.22, 0, 0], [0.55, 1.1, 0.05]])
