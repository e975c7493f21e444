"""Geometries of molecules and clusters: conformers, force fields, packing."""

from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.data import covalent_radii, vdw_radii
from rdkit import Chem
from rdkit.Chem import AllChem
from scipy.spatial.distance import cdist


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
