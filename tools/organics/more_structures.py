"""Structures whose scans make a model robust, drawn from those of `make_structures.py`.

    python tools/organics/more_structures.py s0/rattle.xyz s1/rattle.xyz spice.xyz.gz more

Writes what `phicalc label --sample …` turns into scans: molecules to turn about bonds, to displace
along modes and to take apart, dimers to push together, clusters to scale; pairs of atoms at all
distances; and geometries of SPICE (MIT licence) as they are. README.md of `organics` has the
commands.
"""

import argparse
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.io import read, write
from rdkit import Chem, RDLogger
from smiles import is_tiny, split_of

ELEMENTS = ("H", "C", "N", "O", "F", "Na", "P", "S", "Cl")
MOLECULES = ("small", "drug", "zwitterion")
#: Part of each class of SPICE that is taken; all with phosphorus.
SPICE = {
    "des-monomers": 0.42, "solvated-amino-acids": 0.4, "amino-acid-ligand-test": 1, "ions": 1,
    "water": 1,
}  # fmt: skip
#: Double bonds between carbon, nitrogen, oxygen and sulfur, and bonds of amides and acids.
DOUBLE = Chem.MolFromSmarts("[#6,#7]=[#6,#7,#8,#16]")
AMIDE = Chem.MolFromSmarts("C(=O)[N,O]")


def draw(
    structures: list[Atoms], fits: Callable[[Atoms], bool], number: int, rng: np.random.Generator
) -> list[Atoms]:
    """Draw structures of different molecules."""
    found: dict[str, Atoms] = {}
    for index in rng.permutation(len(structures)):
        atoms = structures[index]
        if fits(atoms):
            found.setdefault(atoms.info["molecule"], atoms)
        if len(found) == number:
            break
    return list(found.values())


def is_molecule(atoms: Atoms, smallest: int, largest: int) -> bool:
    """Whether this is one neutral molecule of such a size."""
    neutral = atoms.info["charge"] == 0 and "Na" not in atoms.symbols
    return neutral and atoms.info["config_type"] in MOLECULES and smallest <= len(atoms) <= largest


def is_cluster(atoms: Atoms, kinds: tuple[str, ...], largest: int) -> bool:
    """Whether this is a cluster of such a kind without sodium."""
    known = atoms.info["config_type"] in kinds and "Na" not in atoms.symbols
    return known and len(atoms) <= largest


def is_ion(atoms: Atoms) -> bool:
    """Whether this is a small ion."""
    return atoms.info["config_type"] in ("cation", "anion") and len(atoms) <= 18


def scans(structures: list[Atoms], rng: np.random.Generator) -> dict[str, list[Atoms]]:
    """Choose what is scanned, by the name of the file."""
    return {
        "torsions": draw(structures, lambda a: is_molecule(a, 6, 22), 260, rng),
        "modes": draw(structures, lambda a: is_molecule(a, 2, 10), 150, rng),
        "dissociation": draw(structures, lambda a: is_molecule(a, 2, 14), 150, rng),
        "ions": draw(structures, is_ion, 60, rng),
        "pairs": draw(structures, lambda a: is_cluster(a, ("dimer",), 18), 90, rng),
        "compressed": draw(
            structures, lambda a: is_cluster(a, ("solvent_cluster", "dimer"), 40), 200, rng
        ),
    }


def is_stiff(atoms: Atoms) -> bool:
    """Whether a small molecule has a double bond outside of rings, or an amide or acid group."""
    kind, size = atoms.info["config_type"], len(atoms)
    if kind not in ("small", "zwitterion") or not 4 <= size <= 16 or atoms.info["charge"] != 0:
        return False
    molecule = Chem.MolFromSmiles(atoms.info["molecule"])
    if molecule is None:
        return False
    bonds = [molecule.GetBondBetweenAtoms(*two) for two in molecule.GetSubstructMatches(DOUBLE)]
    return any(not bond.IsInRing() for bond in bonds) or molecule.HasSubstructMatch(AMIDE)


def stiff(structures: list[Atoms], rng: np.random.Generator) -> list[Atoms]:
    """Draw molecules with bonds that hardly turn."""
    return sorted(draw(structures, is_stiff, 330, rng), key=len)


def encounters(structures: list[Atoms], number: int, rng: np.random.Generator) -> list[Atoms]:
    """Place pairs of small molecules beside each other, turned at random."""
    first: dict[str, Atoms] = {}
    for atoms in filter(is_small, structures):
        first.setdefault(atoms.info["molecule"], atoms)
    known = list(first.values())
    found = []
    for _ in range(number):
        pair = [known[rng.integers(len(known))].copy() for _ in range(2)]
        for atoms in pair:
            atoms.positions -= atoms.get_center_of_mass()
            atoms.rotate(rng.uniform(0, 180), rng.normal(size=3))
        pair[1].positions[:, 2] += 6
        both = pair[0] + pair[1]
        name = ".".join(str(atoms.info["molecule"]) for atoms in pair)  # HF reads as False
        both.info = {"charge": 0, "config_type": "dimer", "molecule": name, "split": "train"}
        found.append(both)
    return found


def is_small(atoms: Atoms) -> bool:
    """Whether this is a neutral molecule of a few atoms."""
    return atoms.info["config_type"] == "small" and len(atoms) <= 7 and atoms.info["charge"] == 0


def tiny(structures: list[Atoms]) -> list[Atoms]:
    """Take every molecule and ion of few heavy atoms, held out or not: they are like no other."""
    found: dict[str, Atoms] = {}
    for atoms in structures:
        name, kind = str(atoms.info["molecule"]), atoms.info["config_type"]
        if is_tiny(atoms) and kind in (*MOLECULES, "cation", "anion"):
            copy = atoms.copy()
            copy.info["split"] = "train"
            found.setdefault(f"{name} {atoms.info['charge']}", copy)
    return list(found.values())


def bare() -> list[Atoms]:
    """Ions of one atom, with nothing around them."""
    found = []
    for symbol, charge in (("Na", 1), ("F", -1), ("Cl", -1)):
        atoms = Atoms(symbol, positions=np.zeros((1, 3)))
        name = f"[{symbol}{'+' if charge > 0 else '-'}]"
        kind = "cation" if charge > 0 else "anion"
        atoms.info = {"charge": charge, "config_type": kind, "molecule": name, "split": "train"}
        found.append(atoms)
    return found


def diatomics() -> list[Atoms]:
    """Two atoms of all elements at all distances, with an even number of electrons."""
    found = []
    for pair in combinations_with_replacement(ELEMENTS, 2):
        numbers = [atomic_numbers[symbol] for symbol in pair]
        charge = 0 if sum(numbers) % 2 == 0 else (1 if "Na" in pair else -1)
        for factor in [*np.linspace(0.6, 2.2, 12), 2.6, 3.2]:
            length = factor * covalent_radii[numbers].sum()
            atoms = Atoms(pair, [[0, 0, 0], [0, 0, length]])
            names = {"config_type": "diatomic", "molecule": " ".join(pair), "split": "train"}
            atoms.info = {"charge": charge, **names}
            found.append(atoms)
    return found


def from_spice(structures: list[Atoms], rng: np.random.Generator) -> list[Atoms]:
    """Choose geometries of elements that SO3LR knows, held out by composition."""
    found = []
    for atoms in structures:
        if not set(atoms.symbols) <= set(ELEMENTS) - {"Na"} or len(atoms) > 75:
            continue
        kind = atoms.info["config_type"].removeprefix("spice_")
        name = f"{kind} {atoms.get_chemical_formula()}"
        if rng.random() > (1 if "P" in atoms.symbols else SPICE[kind]):
            continue
        chosen = Atoms(atoms.symbols, atoms.positions)
        names = {"config_type": kind.replace("-", "_"), "molecule": name, "split": split_of(name)}
        chosen.info = {"charge": int(atoms.info["charge"]), **names}
        found.append(chosen)
    return found


def main() -> None:
    """Read what there is and write one file for each kind of scan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("optimized", type=Path, nargs=2, help="rattle.xyz of make_structures.py")
    parser.add_argument("spice", type=Path, help="geometries of SPICE")
    parser.add_argument("output", type=Path, help="folder")
    arguments = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    structures = [a for file in arguments.optimized for a in read(file, ":")]
    smallest = tiny(structures)
    structures = [a for a in structures if a.info["split"] == "train"]
    rng = np.random.default_rng(7)
    files = {"tiny": smallest, **scans(structures, rng)}
    files["spice"] = from_spice(read(arguments.spice, ":"), rng)
    rng = np.random.default_rng(11)
    files["stiff"] = stiff(structures, rng)
    files["encounters"] = encounters(structures, 160, rng)
    files["diatomics"], files["bare"] = diatomics(), bare()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, found in files.items():
        write(arguments.output / f"{name}.xyz", found, format="extxyz")
        print(name, len(found), "structures")


if __name__ == "__main__":
    main()
