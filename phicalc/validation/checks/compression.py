"""Cells at a fifth of their volume, and random packings: above equilibrium."""

import numpy as np
from ase import Atoms

from phicalc.certificate import Figure
from phicalc.structures import water_box
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.scans import scan
from phicalc.validation.structures import contact, crystals, is_water, samples
from phicalc.validation.subject import Subject

#: Part of the volume that is left.
PART = 0.2
#: Random packings of each structure.
N_PACKINGS = 6
#: Å³ for each atom of a molecule that is packed at random.
VOLUME = 12.0
#: Atoms of a packing are no closer than this part of the sum of covalent radii.
CLOSEST = 0.5


def _cells(subject: Subject) -> dict[str, Atoms]:
    """Return periodic structures by name."""
    found = {name: atoms for name, atoms in samples(subject).items() if atoms.pbc.all()}
    found |= {name: atoms for name, (atoms, _, _) in crystals(subject).items()}
    if is_water(subject):
        found["water"] = water_box(8, density=0.95)
    return found


def compressed(atoms: Atoms, part: float = PART) -> Atoms:
    """Return a copy with a part of the volume, atoms moved along."""
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array * part ** (1 / 3), scale_atoms=True)
    return copy


def packing(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Return the same atoms at random places of the cell (or of a cube), not quite overlapping."""
    copy = atoms.copy()
    if not atoms.pbc.any():
        copy.set_cell(np.eye(3) * (VOLUME * len(atoms)) ** (1 / 3))
    symbols = list(copy.symbols)
    for atom in range(len(copy)):
        for _ in range(200):
            copy.positions[atom] = rng.uniform(size=3) @ copy.cell.array
            vectors = copy.positions[:atom] - copy.positions[atom]
            if copy.pbc.any():
                fractional = vectors @ np.linalg.inv(copy.cell.array)
                vectors -= np.round(fractional) * copy.pbc @ copy.cell.array
            limits = [CLOSEST * contact(symbols[atom], other) for other in symbols[:atom]]
            if (np.linalg.norm(vectors, axis=1) >= limits).all():
                break
    if not atoms.pbc.any():
        copy.set_cell(atoms.cell)
    return copy


def _applies(subject: Subject) -> str:
    return "" if samples(subject) else "no structure of its kind is known: give structures"


def _run(subject: Subject, context: Context) -> Findings:
    figures, rng = [], context.rng
    for name, atoms in _cells(subject).items():
        found = scan(subject, [atoms, compressed(atoms)])
        rise = (found.energies[1] - found.energies[0]) / len(atoms)
        figures.append(
            Figure.of(f"{name} at {PART:.0%} of its volume", rise, "eV/atom", at_least=0)
        )
    lowest, refused, excess = np.inf, 0, []
    for atoms in samples(subject).values():
        if atoms.pbc.any() and not atoms.pbc.all():
            continue  # a slab has no volume
        found = scan(subject, [atoms, *(packing(atoms, rng) for _ in range(N_PACKINGS))])
        above = (found.energies[1:] - found.energies[0]) / len(atoms)
        refused += int(np.isnan(above).sum())
        lowest = min(lowest, np.nanmin(above, initial=np.inf))
        excess.append(found.excess)
    figures.append(
        Figure.of("lowest random packing above the start", lowest, "eV/atom", at_least=0)
    )
    figures.append(Figure.of("random packings without a result", refused, at_most=0))
    if not np.isnan(excess).all():
        largest = float(np.nanmax(excess))
        figures.append(Figure.of("largest charge beyond valence + 2", largest, "e", at_most=0))
    return Findings(figures)


CHECK = Check(
    name="compression",
    title="Compressed cells and random packings lie above equilibrium",
    cost=8.0,
    applies=_applies,
    run=_run,
)
