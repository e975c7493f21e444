"""Structures that `organics` learns from: molecules, their ions, dimers and clusters.

Needs rdkit and a file of SMILES, one in a line: the training part of MOSES (1.6 million drug-like
molecules of ZINC, MIT licence, package ``molsets`` on PyPI, ``moses/dataset/data/train.csv.gz``);
the small molecules are in ``molecules.txt`` beside this script. Run as::

    python make_structures.py train.csv.gz structures

It writes ``given.xyz`` (to be labelled as they are), ``rattle.xyz`` (to be displaced) and
``md.xyz`` (to start dynamics from); ``models/organics/README.md`` has the commands. Every structure
knows its ``charge``, its ``config_type`` (class), its ``molecule`` and its ``split``: molecules are
held out whole, with their ions and whatever contains them.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import write
from geometries import as_atoms, cluster, embed, optimize, pull
from rdkit import Chem, RDLogger
from smiles import (
    IONS,
    SMALL_IONS,
    SOLVENTS,
    Molecule,
    as_molecules,
    charge_of,
    choose,
    cut,
    decorate,
    draw_drugs,
    ionize,
    many,
    parse,
    read_common,
    split_of,
)

#: Ions of pairs, in clusters.
PAIR_CATIONS = ["[Na+]", "[Na+]", "[OH3+]", "[NH4+]", "C[NH3+]", "NC(N)=[NH2+]"]
PAIR_ANIONS = ["[Cl-]", "[F-]", "[OH-]", "CC(=O)[O-]", "[O-]C=O", "[O-][N+](=O)[O-]"]


class Files:
    """Structures by what shall be done with them."""

    def __init__(self) -> None:
        self.lists: dict[str, list[Atoms]] = {"given": [], "rattle": [], "md": []}

    def add(self, where: str, mol: Chem.Mol | None, kind: str, name: str, split: str) -> None:
        """Add a structure unless there is none or its atoms overlap."""
        atoms = None if mol is None else as_atoms(mol, kind, name, split)
        if atoms is not None:
            self.lists[where].append(atoms)


def add_molecules(
    files: Files,
    molecules: list[Molecule],
    given: int,
    dynamic: float,
    rng: np.random.Generator,
) -> None:
    """Raw conformers as they are, and one optimized one to displace or to start dynamics."""
    for molecule in molecules:
        labels = (molecule.kind, molecule.name, molecule.split)
        for _ in range(given):
            mol = embed(molecule.smiles, int(rng.integers(2**31)))
            if mol is not None:
                optimize(mol, int(rng.choice([0, 0, 5, 20])))
            files.add("given", mol, *labels)
        mol = embed(molecule.smiles, int(rng.integers(2**31)))
        if mol is not None:
            optimize(mol, 300)
        files.add("rattle", mol, *labels)
        if rng.random() < dynamic:
            files.add("md", mol, *labels)


def add_dimers(
    files: Files, pools: dict[str, list[Molecule]], number: int, rng: np.random.Generator
) -> None:
    """Pairs of a molecule with another one, a solvent or a small ion, near and apart."""
    for split, part in (("train", 0.86), ("valid", 0.05), ("test", 0.09)):
        for _ in range(int(part * number)):
            first = pools[split][int(rng.integers(len(pools[split])))]
            partner = rng.random()
            if partner < 0.3:
                second = pools[split][int(rng.integers(len(pools[split])))].smiles
            else:
                second = str(rng.choice(SOLVENTS if partner < 0.75 else IONS))
            name = f"{first.name}.{second}"
            add_dimer(files, (first.smiles, second), name, split, rng)


def add_dimer(
    files: Files, pair: tuple[str, str], name: str, split: str, rng: np.random.Generator
) -> None:
    """One dimer at contact to displace, and one pulled apart as it is."""
    if abs(sum(map(charge_of, pair))) > 1:
        return
    steps = int(rng.choice([10, 50, 200]))
    mol = cluster(list(pair), steps, float(rng.uniform(0.55, 0.85)), rng)
    files.add("rattle" if rng.random() < 0.6 else "md", mol, "dimer", name, split)
    if mol is not None:
        n_first = Chem.AddHs(Chem.MolFromSmiles(pair[0])).GetNumAtoms()
        pull(mol, n_first, float(rng.choice([rng.uniform(-0.3, 1), rng.uniform(0, 6)])))
        files.add("given", mol, "dimer", name, split)


def ion_clusters(number: int, rng: np.random.Generator) -> Iterator[tuple[list[str], str]]:
    """Ions, pairs and few of them with 0 to 12 molecules of solvent."""
    for _ in range(number):
        solvent = "O" if rng.random() < 0.6 else str(rng.choice(SOLVENTS))
        heavy = Chem.MolFromSmiles(solvent).GetNumAtoms()
        most = 12 if heavy == 1 else 6 if heavy < 4 else 3
        count = int(rng.integers(1, most + 1))
        kind = rng.random()
        if kind < 0.5:
            centre = [str(rng.choice(SMALL_IONS if rng.random() < 0.7 else IONS))]
        elif kind < 0.85:
            cation, anion = str(rng.choice(PAIR_CATIONS)), str(rng.choice(PAIR_ANIONS))
            centre, count = [cation, anion], int(rng.integers(0, most))
        else:
            second, third = ["[Na+]", "[Cl-]", "[F-]"], ["[Cl-]", "[F-]"]
            centre = ["[Na+]", str(rng.choice(second)), str(rng.choice(third))]
        parts = centre + [solvent] * count
        yield parts, f"{'.'.join(sorted(centre))}+{count}*{solvent}"


def solvent_clusters(number: int, rng: np.random.Generator) -> Iterator[tuple[list[str], str]]:
    """Neat solvents and mixtures with water, 3 to 12 molecules."""
    for _ in range(number):
        solvent = "O" if rng.random() < 0.35 else str(rng.choice(SOLVENTS))
        heavy = Chem.MolFromSmiles(solvent).GetNumAtoms()
        count = int(rng.integers(3, 13 if heavy == 1 else 7 if heavy < 4 else 4))
        water = int(rng.integers(1, 5)) if rng.random() < 0.4 else 0
        yield [solvent] * count + ["O"] * water, f"{count}*{solvent}+{water}*O"


def add_clusters(
    files: Files, clusters: Iterable[tuple[list[str], str]], kind: str, rng: np.random.Generator
) -> None:
    """Clusters to displace and to start dynamics from; held out by composition."""
    for parts, name in clusters:
        steps = int(rng.choice([0, 20, 100, 300]))
        mol = cluster(parts, steps, float(rng.uniform(0.6, 0.8)), rng)
        where = str(rng.choice(["given", "rattle", "md", "md"]))
        files.add(where, mol, kind, name, split_of(f"{kind} {name}"))


def add_crystallites(files: Files, number: int, rng: np.random.Generator) -> None:
    """Blocks of rock salt, whole or with an ion less; the lattice constant varies."""
    for _ in range(number):
        halide, constant = [("Cl", 5.4), ("F", 4.5)][int(rng.integers(2))]
        size = sorted(rng.integers(1, 4, size=3))
        crystal = bulk(f"Na{halide}", "rocksalt", a=1.0, cubic=True).repeat(2)
        inside = (crystal.positions < np.array(size) / 2 - 0.1).all(axis=1)
        atoms = crystal[inside]
        atoms.pbc = False
        if not 2 <= len(atoms) <= 18:
            continue
        if len(atoms) > 2 and rng.random() < 0.3:
            del atoms[int(rng.integers(len(atoms)))]
        atoms.cell = None
        atoms.positions *= constant * rng.uniform(0.9, 1.15)
        charge = int((atoms.symbols == "Na").sum() - (atoms.symbols == halide).sum())
        name = f"crystallite {atoms.get_chemical_formula()}"
        split = "train" if len(atoms) < 4 else split_of(name)
        labels = {"config_type": "ion_cluster", "molecule": name, "split": split}
        atoms.info = {"charge": charge, **labels}
        files.lists["rattle"].append(atoms)


def make(path: Path, scale: float, rng: np.random.Generator) -> Files:
    """Draw everything; `scale` multiplies the numbers of structures."""

    def n(number: int) -> int:
        return max(1, int(scale * number))

    files = Files()
    common = read_common()
    drawn = draw_drugs(path, n(12000), rng)
    drugs = choose((s for s in drawn if parse(s, 22) is not None), n(700), rng)
    pieces = choose(cut(drawn), n(2400), rng)
    simple = [m.smiles for m in common if m.kind == "small" and parse(m.smiles, 7) is not None]
    bases = simple + pieces
    decorated = many(lambda: decorate(str(rng.choice(bases)), rng), n(900))
    neutral = [*bases, *sorted(decorated), *drugs[: n(150)]]
    cations = sorted(many(lambda: ionize(str(rng.choice(neutral)), 1, rng), n(500)))
    anions = sorted(many(lambda: ionize(str(rng.choice(neutral)), -1, rng), n(500)))
    small = as_molecules([*pieces, *sorted(decorated)], "small")
    add_molecules(files, common, 2, 1.0, rng)
    add_molecules(files, small, 1, 0.3, rng)
    add_molecules(files, as_molecules(drugs, "drug"), 1, 0.15, rng)
    add_molecules(files, as_molecules(cations, "cation"), 1, 0.4, rng)
    add_molecules(files, as_molecules(anions, "anion"), 1, 0.4, rng)
    pools: dict[str, list[Molecule]] = defaultdict(list)
    ions = [*as_molecules(cations, "cation"), *as_molecules(anions, "anion")]
    for molecule in [*common, *small, *ions]:
        if Chem.MolFromSmiles(molecule.smiles).GetNumAtoms() <= 9:
            pools[molecule.split].append(molecule)
    add_dimers(files, pools, n(1500), rng)
    add_clusters(files, ion_clusters(n(1000), rng), "ion_cluster", rng)
    add_clusters(files, solvent_clusters(n(600), rng), "solvent_cluster", rng)
    add_crystallites(files, n(150), rng)
    return files


def main() -> None:
    """Make all structures and write them by what shall be done with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("smiles", type=Path, help="train.csv.gz of MOSES")
    parser.add_argument("output", type=Path, help="folder")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all numbers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    files = make(arguments.smiles, arguments.scale, np.random.default_rng(arguments.seed))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, structures in files.lists.items():
        write(arguments.output / f"{name}.xyz", structures, format="extxyz")
        print(name, len(structures), "structures", sum(map(len, structures)), "atoms")


if __name__ == "__main__":
    main()
