"""Molecules and ions as SMILES: a list, random ones, fragments, decorated and ionized ones."""

import csv
import gzip
import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from rdkit import Chem
from rdkit.Chem import BRICS
from rdkit.Chem.Scaffolds import MurckoScaffold

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


def is_tiny(atoms: Atoms) -> bool:
    """Whether a structure has up to three heavy atoms: nothing else teaches what it is like."""
    return int((atoms.numbers > 1).sum()) <= 3


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
