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
import csv
import gzip
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii, vdw_radii
from ase.io import write
from rdkit import Chem, RDLogger
from rdkit.Chem import BRICS, AllChem
from rdkit.Chem.Scaffolds import MurckoScaffold
from scipy.spatial.distance import cdist

ELEMENTS = {"H", "C", "N", "O", "F", "Na", "S", "Cl"}
HERE = Path(__file__).parent

#: What may replace a hydrogen on carbon.
SUBSTITUENTS = [
    "O", "N", "F", "Cl", "S", "C", "C#N", "C(=O)O", "C=O", "[N+](=O)[O-]", "N=[N+]=[N-]", "OC",
    "N(C)C", "C(F)(F)F", "C(Cl)(Cl)Cl", "S(=O)(=O)O", "S(=O)(=O)N", "S(C)(=O)=O", "C#C", "C=C",
    "NC(C)=O", "C(N)=O", "C(=O)OC", "C(C)=O", "SC", "NC(=N)N", "N=C=O", "OC(C)=O",
]  # fmt: skip

#: Sites that lose a proton, and sites that gain one; the first atom changes its charge.
ACIDS = [
    "[OX2H1]C(=O)", "[OX2H1]S(=O)(=O)", "[OX2H1]c", "[SX2H1]", "[NX3;H1,H2]S(=O)(=O)", "[nX3H1]",
    "[OX2H1][CX4]", "[NX3H1](C=O)C=O", "[NX3;H1]C(=O)",
]  # fmt: skip
BASES = [
    "[NX3;!$(N[#6]=[!#6]);!$(N[#6]#N);!$(NS(=O)=O);!$([N+]);!$(N-[O,N])]", "[nX2]",
    "[NX2]=[#6]", "[OX1]=[#6]",
]  # fmt: skip

#: Partners of dimers and shells of clusters: never held out themselves.
SOLVENTS = [
    "O", "CO", "CCO", "CC(C)=O", "CS(C)=O", "CN(C)C=O", "CC#N", "C1CCOC1", "ClC(Cl)Cl", "ClCCl",
    "c1ccccc1", "N", "OCCO", "CC(=O)O",
]  # fmt: skip
SMALL_IONS = ["[Na+]", "[Cl-]", "[F-]", "[OH-]", "[OH3+]", "[NH4+]"]
IONS = [
    *SMALL_IONS, "CC(=O)[O-]", "C[NH3+]", "NC(N)=[NH2+]", "[O-]c1ccccc1", "C[O-]", "[S-]C",
    "c1c[nH+]c[nH]1", "C[N+](C)(C)C", "CS(=O)(=O)[O-]", "OC(=O)[O-]", "[O-][N+](=O)[O-]",
    "[O-]C=O",
]  # fmt: skip
PAIR_CATIONS = ["[Na+]", "[Na+]", "[OH3+]", "[NH4+]", "C[NH3+]", "NC(N)=[NH2+]"]
PAIR_ANIONS = ["[Cl-]", "[F-]", "[OH-]", "CC(=O)[O-]", "[O-]C=O", "[O-][N+](=O)[O-]"]


class Molecule(NamedTuple):
    """A molecule or ion, and the name by which it is held out."""

    smiles: str
    kind: str
    name: str

    @property
    def split(self) -> str:
        """Part of the data that it belongs to."""
        common = self.smiles in SOLVENTS or self.smiles in IONS
        return "train" if common else split_of(self.name)


def split_of(name: str) -> str:
    """Draw a part by the digest of a name: 5 % valid, 7 % test."""
    draw = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8
    return "valid" if draw < 0.05 else "test" if draw < 0.12 else "train"


def parse(smiles: str, heaviest: int = 24) -> Chem.Mol | None:
    """Read a closed-shell molecule of the elements and size wanted."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None or not 0 < mol.GetNumAtoms() <= heaviest or "." in smiles:
        return None
    wrong = any(a.GetSymbol() not in ELEMENTS or a.GetNumRadicalElectrons() for a in mol.GetAtoms())
    return None if wrong else mol


def charge_of(smiles: str) -> int:
    """Total charge."""
    return int(Chem.GetFormalCharge(Chem.MolFromSmiles(smiles)))


def read_common() -> list[Molecule]:
    """Molecules of the list beside this script."""
    found = []
    for line in (HERE / "molecules.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        for smiles in line.split():
            mol = Chem.MolFromSmiles(smiles)
            charge = Chem.GetFormalCharge(mol)
            zwitter = len(smiles.split("[N+](=O)[O-]")) == 1 and ("-]" in smiles and "+" in smiles)
            kind = "cation" if charge > 0 else "anion" if charge < 0 else "small"
            if not charge and zwitter and ("H" in smiles or "C(=O)[O-]" in smiles):
                kind = "zwitterion"
            found.append(Molecule(smiles, kind, neutral_name(mol)))
    return list(dict.fromkeys(found))


def neutral_name(mol: Chem.Mol) -> str:
    """Name that a molecule shares with its ions: SMILES without charges and hydrogens."""
    mol = Chem.RWMol(mol)
    for atom in mol.GetAtoms():
        atom.SetFormalCharge(0)
        atom.SetNumExplicitHs(0)
        atom.SetNoImplicit(True)
    return str(Chem.MolToSmiles(mol, isomericSmiles=False, canonical=True))


def draw_drugs(path: Path, number: int, rng: np.random.Generator) -> list[str]:
    """Random molecules of the file."""
    with gzip.open(path, "rt") as stream:
        smiles = [row[0] for row in csv.reader(stream)][1:]
    return [smiles[i] for i in rng.choice(len(smiles), number, replace=False)]


def cut(drugs: Iterable[str]) -> set[str]:
    """Pieces between the bonds that BRICS cuts, and scaffolds of rings."""
    pieces = set()
    for smiles in drugs:
        mol = Chem.MolFromSmiles(smiles)
        pieces |= {re.sub(r"\[\d+\*\]", "[H]", piece) for piece in BRICS.BRICSDecompose(mol)}
        pieces.add(Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(mol)))
    mols = (parse(piece, 12) for piece in pieces)
    return {Chem.MolToSmiles(mol, isomericSmiles=False) for mol in mols if mol is not None}


def decorate(smiles: str, rng: np.random.Generator) -> str | None:
    """Replace a hydrogen on carbon by a functional group."""
    mol = Chem.MolFromSmiles(smiles)
    sites = [a.GetIdx() for a in mol.GetAtoms() if a.GetSymbol() == "C" and a.GetTotalNumHs()]
    if not sites:
        return None
    group = Chem.MolFromSmiles(str(rng.choice(SUBSTITUENTS)))
    joined = Chem.RWMol(Chem.CombineMols(mol, group))
    joined.AddBond(int(rng.choice(sites)), mol.GetNumAtoms(), Chem.BondType.SINGLE)
    try:
        Chem.SanitizeMol(joined)
    except Chem.MolSanitizeException:
        return None
    return str(Chem.MolToSmiles(joined, isomericSmiles=False))


def ionize(smiles: str, charge: int, rng: np.random.Generator) -> str | None:
    """Give a proton to a random site, or take one from it."""
    mol = Chem.MolFromSmiles(smiles)
    hits = [
        [match[0] for match in mol.GetSubstructMatches(Chem.MolFromSmarts(pattern))]
        for pattern in (BASES if charge > 0 else ACIDS)
    ]
    hits = [hit for hit in hits if hit]
    if not hits:
        return None
    kind = hits[int(rng.integers(len(hits)))]
    atom = mol.GetAtomWithIdx(int(rng.choice(kind)))
    hydrogens = atom.GetTotalNumHs()
    atom.SetFormalCharge(atom.GetFormalCharge() + charge)
    atom.SetNoImplicit(True)
    atom.SetNumExplicitHs(hydrogens + charge)
    try:
        Chem.SanitizeMol(mol)
    except Chem.MolSanitizeException:
        return None
    return str(Chem.MolToSmiles(mol, isomericSmiles=False))


def embed(smiles: str, seed: int) -> Chem.Mol | None:
    """Three-dimensional conformer, not optimized."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if mol.GetNumAtoms() == 1:
        conformer = Chem.Conformer(1)
        conformer.Set3D(True)
        mol.AddConformer(conformer)
        return mol
    settings = AllChem.ETKDGv3()
    settings.randomSeed = seed
    settings.maxIterations = 30
    return mol if AllChem.EmbedMolecule(mol, settings) == 0 else None


def optimize(mol: Chem.Mol, steps: int) -> None:
    """Minimize by a force field, MMFF where it has parameters and UFF elsewhere."""
    if steps == 0 or mol.GetNumAtoms() < 2:
        return
    if AllChem.MMFFHasAllMoleculeParams(mol):
        AllChem.MMFFOptimizeMolecule(mol, maxIters=steps, ignoreInterfragInteractions=False)
    elif AllChem.UFFHasAllMoleculeParams(mol):
        AllChem.UFFOptimizeMolecule(mol, maxIters=steps, ignoreInterfragInteractions=False)


def positions_of(mol: Chem.Mol) -> np.ndarray:
    """Coordinates in Å."""
    return np.array(mol.GetConformer().GetPositions())


def put(mol: Chem.Mol, positions: np.ndarray) -> None:
    """Set coordinates."""
    conformer = mol.GetConformer()
    for index, position in enumerate(positions):
        conformer.SetAtomPosition(index, position.tolist())


def radii_of(mol: Chem.Mol) -> np.ndarray:
    """Van der Waals radii in Å."""
    return vdw_radii[[a.GetAtomicNum() for a in mol.GetAtoms()]]


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Rotation matrix, uniform."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def pack(mols: list[Chem.Mol], contact: float, rng: np.random.Generator) -> Chem.Mol:
    """Put molecules around the first one, each as near as `contact` allows."""
    whole = Chem.Mol(mols[0])
    put(whole, positions_of(whole) - positions_of(whole).mean(axis=0))
    for mol in mols[1:]:
        turned = (positions_of(mol) - positions_of(mol).mean(axis=0)) @ random_rotation(rng).T
        first, best = positions_of(whole), None
        least = contact * (radii_of(whole)[:, None] + radii_of(mol)[None])
        for _ in range(4):  # the nearest of a few directions makes compact clusters
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            distance = 0.5
            while (cdist(first, turned + distance * direction) < least).any():
                distance += 0.15
            if best is None or distance < best[0]:
                best = distance, direction
        moved = Chem.Mol(mol)
        put(moved, turned + best[0] * best[1])
        whole = Chem.CombineMols(whole, moved)
    Chem.SanitizeMol(whole)
    return whole


@lru_cache(maxsize=100)
def conformer_of(smiles: str, seed: int) -> Chem.Mol | None:
    """Optimized conformer."""
    mol = embed(smiles, seed)
    if mol is not None:
        optimize(mol, 100)
    return mol


def cluster(
    parts: list[str], steps: int, contact: float, rng: np.random.Generator
) -> Chem.Mol | None:
    """Packed molecules, minimized by some steps of a force field."""
    mols = [conformer_of(smiles, int(rng.integers(4))) for smiles in parts]
    if any(mol is None for mol in mols):
        return None
    whole = pack(mols, contact, rng)
    optimize(whole, steps)
    return whole


def pull(mol: Chem.Mol, n_first: int, distance: float) -> None:
    """Move all atoms but the first `n_first` away along the line between both centres."""
    positions = positions_of(mol)
    line = positions[n_first:].mean(axis=0) - positions[:n_first].mean(axis=0)
    positions[n_first:] += distance * line / np.linalg.norm(line)
    put(mol, positions)


def as_atoms(mol: Chem.Mol, kind: str, name: str, split: str) -> Atoms | None:
    """Structure for a file; None if atoms overlap."""
    numbers = [a.GetAtomicNum() for a in mol.GetAtoms()]
    atoms = Atoms(numbers, positions_of(mol))
    charge = Chem.GetFormalCharge(mol)
    atoms.info = {"charge": charge, "config_type": kind, "molecule": name, "split": split}
    return None if overlapping(atoms) else atoms


def overlapping(atoms: Atoms) -> bool:
    """Whether two atoms are nearer than 0.65 of a bond."""
    if len(atoms) == 1:
        return False
    radii = covalent_radii[atoms.numbers]
    ratios = atoms.get_all_distances() / (radii[:, None] + radii[None])
    return bool(ratios[np.triu_indices(len(atoms), 1)].min() < 0.65)


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


def choose(smiles: Iterable[str], number: int, rng: np.random.Generator) -> list[str]:
    """Random ones of a set, the same in every run."""
    ordered = sorted(smiles)
    return [ordered[i] for i in rng.permutation(len(ordered))[:number]]


def as_molecules(smiles: Iterable[str], kind: str) -> list[Molecule]:
    """Give molecules their names."""
    return [Molecule(s, kind, neutral_name(Chem.MolFromSmiles(s))) for s in smiles]


def many(make: Callable[[], str | None], number: int) -> set[str]:
    """Different results of a random rule."""
    found: set[str] = set()
    for _ in range(30 * number):
        made = make()
        if made is not None and (mol := parse(made)) is not None:
            found.add(Chem.MolToSmiles(mol, isomericSmiles=False))
        if len(found) == number:
            break
    return found


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
