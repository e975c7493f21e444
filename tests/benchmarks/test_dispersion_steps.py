"""Steps in the energy of GFN2-xTB that no smooth potential follows: `-k dispersion_steps`.

The dispersion coefficients of GFN2-xTB (those of D4) switch between reference systems of sodium
within a tenth of its coordination number, at 3.37: the energy of a cluster steps by 20 to 40 meV
while an atom moves by 0.05 Å, and forces have spikes of up to 1 eV/Å there. Prints errors of
`nacl-clusters` on validation frames that have a sodium near such a step, and on all others; and
one step, by GFN2-xTB, D4 alone and the network.

Needs tblite and dftd4 (`bench`), and $PHICALC_DATA.

References
----------
D4: Caldeweyher et al., J. Chem. Phys. 150, 154122 (2019), doi:10.1063/1.5090222.
"""

from __future__ import annotations

from collections.abc import Callable

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, Hartree

from phicalc import PhiCalculator
from phicalc.labelling import CalculatorSpec

STEP, WIDTH = 3.37, 0.1


def by_d4(atoms: Atoms) -> tuple[np.ndarray, float, np.ndarray]:
    """Coordination numbers, dispersion energy (eV) with damping as in GFN2-xTB, C6 of each atom."""
    interface = pytest.importorskip("dftd4.interface", reason='pip install "phicalc[bench]"')
    model = interface.DispersionModel(
        atoms.numbers, atoms.positions / Bohr, charge=float(atoms.info["charge"])
    )
    damping = interface.DampingParam(s6=1.0, s8=2.7, s9=5.0, a1=0.52, a2=5.0)
    found = model.get_properties()
    energy = model.get_dispersion(damping, grad=False)["energy"] * Hartree
    return found["coordination numbers"], float(energy), np.diag(found["c6 coefficients"])


def distance_to_step(atoms: Atoms) -> float:
    """How near the coordination number of any sodium is to the step."""
    return float(np.abs(by_d4(atoms)[0][atoms.symbols == "Na"] - STEP).min())


def by_network(atoms: Atoms, calculator: PhiCalculator) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, info=atoms.info, calculator=calculator)


def test_dispersion_steps(record: Callable[[str, float], None], shared_data) -> None:
    frames = ase.io.read(shared_data("xtb_nacl_clusters.xyz.gz"), ":")
    frames = [atoms for atoms in frames if atoms.info["split"] == "val"]
    calculator = PhiCalculator("nacl-clusters")
    wrong = [by_network(a, calculator).get_forces() - a.get_forces() for a in frames]
    errors = 1e3 * np.array([np.sqrt(np.square(each).mean()) for each in wrong])
    near = np.array([distance_to_step(atoms) < WIDTH for atoms in frames])
    print(f"\nforces of {len(frames)} frames, meV/Å (root mean square; median of the frames)")
    for name, chosen in (("all", near | True), ("near a step", near), ("others", ~near)):
        rms = float(np.sqrt(np.square(errors[chosen]).mean()))
        print(f"  {name:<12} {chosen.sum():4d}  {rms:6.1f}  {np.median(errors[chosen]):6.1f}")
        record(f"nacl-clusters, forces, {name} (meV/Å)", rms)
    worst = int(np.argmax([np.abs(each).max() for each in wrong]))
    across_step(frames[worst], wrong[worst], calculator)
    assert np.median(errors[near]) > np.median(errors[~near])


def across_step(atoms: Atoms, wrong: np.ndarray, calculator: PhiCalculator) -> None:
    """Move the atom with the worst force along its error, and print energies on the way."""
    pytest.importorskip("tblite", reason='pip install "phicalc[label]"')
    index = int(np.linalg.norm(wrong, axis=1).argmax())
    direction = wrong[index] / np.linalg.norm(wrong[index])
    print(f"atom {index} ({atoms.symbols[index]}) of a {atoms.get_chemical_formula()}: "
          "Å, meV by GFN2-xTB, D4, network; largest C6 (atomic units)")  # fmt: skip
    first: list[float] | None = None
    for distance in np.arange(-0.10, 0.101, 0.02):
        moved = Atoms(atoms.numbers, atoms.positions, info=atoms.info)
        moved.positions[index] += distance * direction
        _, dispersion, c6 = by_d4(moved)
        network = by_network(moved, calculator).get_potential_energy()
        moved.calc = CalculatorSpec().make(moved)
        energies = [moved.get_potential_energy(), dispersion, network]
        first = first or energies
        columns = " ".join(f"{1e3 * (e - e0):8.1f}" for e, e0 in zip(energies, first, strict=True))
        print(f"  {distance:+.2f} {columns}  {c6[atoms.symbols == 'Na'].max():6.1f}")
