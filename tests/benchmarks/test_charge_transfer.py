"""What mean errors hide: `make bench ARGS="-k charge_transfer"` (a minute; needs tblite).

`ag3` and `carbon-chains` are asked how energy and charges answer to a change far away, and
GFN2-xTB, the level of their labels, is asked the same:

- Ag3 with the total charges +1 and -1 at the same atoms (validation frames of both);
- C10H3+ without one of the two hydrogens at its one end: charges of the other half of the chain.

Prints the root mean square of what xTB says and of the error, over the structures.
"""

from __future__ import annotations

from collections.abc import Callable

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculationFailed

from phicalc import PhiCalculator
from phicalc.labelling import CalculatorSpec

N_FRAMES = 50


def answers(atoms: Atoms, charge: int, calculator: object) -> tuple[float, np.ndarray]:
    """Energy in eV and charges in e by the calculator."""
    atoms = Atoms(atoms.numbers, atoms.positions, info={"charge": charge}, calculator=calculator)
    return atoms.get_potential_energy(), atoms.get_charges()


def by_xtb(atoms: Atoms, charge: int) -> tuple[float, np.ndarray]:
    atoms = Atoms(atoms.numbers, atoms.positions, info={"charge": charge})
    return answers(atoms, charge, CalculatorSpec().make(atoms))


def validation_frames(path, kind: str | None = None) -> list[Atoms]:
    frames = [atoms for atoms in ase.io.read(path, ":") if atoms.info["split"] == "val"]
    kept = [atoms for atoms in frames if kind in (None, atoms.info["config_type"])]
    return kept[:: max(1, len(kept) // N_FRAMES)]


def far_hydrogen(atoms: Atoms) -> tuple[int, np.ndarray]:
    """Hydrogen of the CH2 group, and the atoms of the other half of the chain."""
    hydrogens = [atom.index for atom in atoms if atom.symbol == "H"]
    distances = atoms.get_all_distances()
    pairs = [(i, j) for i in hydrogens for j in hydrogens if i < j]
    removed, _ = min(pairs, key=lambda pair: distances[pair])
    return removed, distances[removed] > np.median(distances[removed])


def report(
    name: str, model: np.ndarray, reference: np.ndarray, unit: str, record: Callable
) -> float:
    size, error = (float(np.sqrt(np.mean(x**2))) for x in (reference, model - reference))
    spread = float(np.std(reference))
    print(
        f"  {name:<24} xTB {size:9.4f} (spread {spread:.4f}), error {error:.4f} {unit}, "
        f"{100 * error / size:.1f} %"
    )
    record(f"charge transfer, {name}, error ({unit})", error)
    return error / size


def test_charge_transfer_of_total_charge(shared_data, record) -> None:
    calculator = PhiCalculator("ag3")
    energies, charges = [], []
    for atoms in validation_frames(shared_data("xtb_ag3_ions.xyz.gz")):
        try:
            reference = by_xtb(atoms, 1), by_xtb(atoms, -1)
        except CalculationFailed:  # some shapes of one ion have no converged density as the other
            continue
        for found in ((answers(atoms, 1, calculator), answers(atoms, -1, calculator)), reference):
            (cation, q_cation), (anion, q_anion) = found
            energies.append(anion - cation)
            charges.append(q_anion - q_cation)
    print(f"\nAg3-, Ag3+ at the same atoms, {len(energies) // 2} structures:")
    energies, charges = np.array(energies), np.array(charges)
    assert report("ΔE", energies[::2], energies[1::2], "eV", record) < 1
    assert report("Δq", charges[::2], charges[1::2], "e", record) < 1


def test_charge_transfer_after_an_atom_is_gone(shared_data, record) -> None:
    pytest.importorskip("tblite", reason='pip install "phicalc[label]"')
    calculator = PhiCalculator("carbon-chains")
    energies, charges = [], []
    for atoms in validation_frames(shared_data("xtb_carbon_chain.xyz.gz"), "C10H3+"):
        removed, far = far_hydrogen(atoms)
        rest = atoms[[i for i in range(len(atoms)) if i != removed]]
        for ask in (lambda a, q: answers(a, q, calculator), by_xtb):
            (before, q_before), (after, q_after) = ask(atoms, 1), ask(rest, 0)
            energies.append(after - before)
            charges.append((q_after - np.delete(q_before, removed))[np.delete(far, removed)])
    print(f"\nC10H3+ without a hydrogen, {len(energies) // 2} structures:")
    energies, charges = np.array(energies), np.concatenate(charges).reshape(len(energies), -1)
    assert report("ΔE", energies[::2], energies[1::2], "eV", record) < 1
    assert report("Δq of the far half", charges[::2], charges[1::2], "e", record) < 1
