r"""SO3LR (PBE0+MBD, machine-learned; package ``so3krates-torch`` on PyPI) as a teacher.

It knows H, C, N, O, F, P, S and Cl. For `phicalc label`, with this folder on PYTHONPATH::

    phicalc label molecules.xyz --calculator so3lr:SO3LR --charge-argument info \
        --dipole-origin coordinates

`so3lr:InPieces` is the same for structures of these elements; where there are others (sodium), it
takes molecules from SO3LR and what holds them together from GFN2-xTB.
"""

import warnings
from collections import Counter
from functools import cache
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.neighborlist import build_neighbor_list, natural_cutoffs
from scipy.sparse.csgraph import connected_components
from so3krates_torch.calculator.so3 import SO3LRCalculator

from phicalc.labelling import CalculatorSpec

ELEMENTS = frozenset({"H", "C", "N", "O", "F", "P", "S", "Cl"})
#: An energy, forces, charges, a dipole: sums and differences of them are taken one by one.
Labels = dict[str, Any]


@cache
def teacher(cutoff: float) -> Calculator:
    """Load the weights once in a process: `phicalc label` makes a calculator for each frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of how it finds its weights
        return SO3LRCalculator(
            r_max_lr=cutoff, dispersion_energy_cutoff_lr_damping=2.0, default_dtype="float32"
        )


def by_so3lr(atoms: Atoms, cutoff: float) -> Labels:
    """Labels of SO3LR for the total charge ``info["charge"]``."""
    inner = teacher(cutoff)
    inner.calculate(atoms)
    found = inner.results
    return {
        "energy": found["energy"],
        "forces": np.array(found["forces"], dtype=float),
        "charges": np.array(found["partial_charges"], dtype=float),
        "dipole": np.array(found["dipole"], dtype=float),
    }


def by_xtb(atoms: Atoms) -> Labels:
    """Labels of GFN2-xTB for the total charge ``info["charge"]``."""
    inner = CalculatorSpec("gfn2-xtb").make(atoms)
    inner.calculate(atoms, ["energy", "forces", "charges", "dipole"])
    return {key: inner.results[key] for key in ("energy", "forces", "charges", "dipole")}


def in_pieces(atoms: Atoms, cutoff: float) -> Labels:
    """GFN2-xTB of the whole, with SO3LR in place of GFN2-xTB within each molecule it knows."""
    total = by_xtb(atoms)
    for piece in pieces(atoms, total["charges"]):
        molecule = atoms[piece]
        if ELEMENTS.issuperset(molecule.symbols):
            molecule.info["charge"] = round(total["charges"][piece].sum())
            better, worse = by_so3lr(molecule, cutoff), by_xtb(molecule)
            total["energy"] += better["energy"] - worse["energy"]
            total["dipole"] += better["dipole"] - worse["dipole"]
            for key in ("forces", "charges"):
                total[key][piece] += better[key] - worse[key]
    return total


def pieces(atoms: Atoms, charges: np.ndarray) -> list[np.ndarray]:
    """Return the atoms of each molecule; their charges must round to the charge of the whole.

    Raises
    ------
    CalculationFailed
        Where it is not clear which molecule is which ion.
    """
    metals = [not ELEMENTS.issuperset({symbol}) for symbol in atoms.symbols]
    reach = np.where(metals, 0.0, natural_cutoffs(atoms, mult=1.15))  # metals are ions
    bonds = build_neighbor_list(atoms, reach, self_interaction=False).get_connectivity_matrix()
    _, labels = connected_components(bonds, directed=False)
    found = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    whole = sum(round(charges[piece].sum()) for piece in found)
    if whole != atoms.info.get("charge", 0):
        held = Counter(str(atoms[piece].symbols) for piece in found)
        raise CalculationFailed(f"charges of {dict(held)} do not round to the total charge")
    return found


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
        self.results = self.labels(self.atoms)
        self.results["free_energy"] = self.results["energy"]

    def labels(self, atoms: Atoms) -> Labels:
        """Compute energy, forces, charges and dipole."""
        return by_so3lr(atoms, self.cutoff)


class InPieces(SO3LR):
    """SO3LR, and for structures with other elements GFN2-xTB between molecules of SO3LR."""

    def labels(self, atoms: Atoms) -> Labels:
        """Compute energy, forces, charges and dipole."""
        known = ELEMENTS.issuperset(atoms.symbols)
        return super().labels(atoms) if known else in_pieces(atoms, self.cutoff)
