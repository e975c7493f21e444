r"""SO3LR (PBE0+MBD, machine-learned; package ``so3krates-torch`` on PyPI) as a teacher.

It knows H, C, N, O, F, P, S and Cl. For `phicalc label`, with this folder on PYTHONPATH::

    phicalc label molecules.xyz --calculator so3lr:SO3LR --charge-argument info \
        --dipole-origin coordinates
"""

import warnings
from functools import cache
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from so3krates_torch.calculator.so3 import SO3LRCalculator


@cache
def teacher(cutoff: float) -> Calculator:
    """Load the weights once in a process: `phicalc label` makes a calculator for each frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of how it finds its weights
        return SO3LRCalculator(
            r_max_lr=cutoff, dispersion_energy_cutoff_lr_damping=2.0, default_dtype="float32"
        )


class SO3LR(Calculator):
    """SO3LR for molecules and clusters of the total charge ``info["charge"]``.

    Parameters
    ----------
    cutoff
        Of the Coulomb and dispersion energies, in Å; by default all pairs of a cluster.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy", "free_energy", "forces", "charges", "dipole",
    ]  # fmt: skip

    def __init__(self, cutoff: float = 100.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.cutoff = cutoff

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute everything at once."""
        super().calculate(atoms, properties, system_changes)
        inner = teacher(self.cutoff)
        inner.calculate(self.atoms)
        found = inner.results
        self.results = {
            "energy": found["energy"],
            "free_energy": found["energy"],
            "forces": np.array(found["forces"], dtype=float),
            "charges": np.array(found["partial_charges"], dtype=float),
            "dipole": np.array(found["dipole"], dtype=float),
        }
