"""Chains, pairs of molecules, slabs and salt water, built without data files."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.structures import water_box

#: Lattice constant of NaCl in Å, near the minimum of GFN1-xTB.
NACL = 5.47
FAR = 1000.0  # Å


def alkane(n: int) -> Atoms:
    """Return CₙH₂ₙ₊₂, all anti, along x."""
    length, half = 1.53, np.radians(112.0) / 2
    step, height = length * np.sin(half), length * np.cos(half)
    carbons = [np.array([i * step, 0.0, (-1) ** i * height / 2]) for i in range(n)]
    positions, symbols = list(carbons), ["C"] * n
    for i, carbon in enumerate(carbons):
        up = (-1) ** i
        for side in (1, -1):
            positions.append(carbon + 1.09 * np.array([0.0, 0.82 * side, 0.57 * up]))
            symbols.append("H")
    for carbon, way, up in ((carbons[0], -1, 1), (carbons[-1], 1, (-1) ** (n - 1))):
        positions.append(carbon + 1.09 * np.array([way * np.sin(half), 0.0, -up * np.cos(half)]))
        symbols.append("H")
    return Atoms(symbols, positions)


def polyyne(n: int) -> Atoms:
    """Return H(C≡C)ₙ⸝₂H, straight, along x; n is even."""
    lengths = [1.06, *(1.21 if i % 2 == 0 else 1.37 for i in range(n - 1)), 1.06]
    x = np.concatenate([[0.0], np.cumsum(lengths)])
    return Atoms("H" + "C" * n + "H", [[each, 0.0, 0.0] for each in x])


def protonated_chain() -> Atoms:
    """Return C₁₀H₃⁺: polyyne with a CH₂ group at one end."""
    chain = polyyne(10)
    x = chain.positions[-2, 0]
    chain.positions[-1] = [x + 0.55, 0.94, 0.0]
    chain += Atoms("H", [[x + 0.55, -0.94, 0.0]])
    return chain


def _ion(symbol: str, charge: int) -> tuple[Atoms, int]:
    return Atoms(symbol, [[0.0, 0.0, 0.0]]), charge


def _ammonium() -> Atoms:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return Atoms("NH4", np.vstack([np.zeros(3), 1.03 * corners]))


def _acetate() -> Atoms:
    acid = molecule("CH3COOH")
    oxygens = [atom.index for atom in acid if atom.symbol == "O"]
    hydrogens = [atom.index for atom in acid if atom.symbol == "H"]
    acidic = min(hydrogens, key=lambda h: acid.get_distances(h, oxygens).min())
    del acid[acidic]
    return acid


def far_pairs() -> dict[str, tuple[tuple[Atoms, int], tuple[Atoms, int]]]:
    """Pairs of molecules or ions with their charges in e."""
    sodium, chloride = _ion("Na", 1), _ion("Cl", -1)
    water, benzene = (molecule("H2O"), 0), (molecule("C6H6"), 0)
    ammonium, acetate = (_ammonium(), 1), (_acetate(), -1)
    return {
        "Na+ / H2O": (sodium, water),
        "Na+ / Cl-": (sodium, chloride),
        "Cl- / H2O": (chloride, water),
        "NH4+ / benzene": (ammonium, benzene),
        "NH4+ / CH3COO-": (ammonium, acetate),
        "CH3COO- / H2O": (acetate, water),
        "CO2 / H2O": ((molecule("CO2"), 0), water),
        "benzene / H2O": (benzene, water),
        "C10H2 / C10H3+": ((polyyne(10), 0), (protonated_chain(), 1)),
        "NH3 / HCl": ((molecule("NH3"), 0), (molecule("HCl"), 0)),
    }


def pair_at(first: Atoms, second: Atoms, distance: float) -> Atoms:
    """Return both, the second moved away along z."""
    moved = second.copy()
    moved.translate([0.0, 0.0, distance])
    return first + moved


def slab(cells: int) -> Atoms:
    """Return a (001) slab of NaCl, so many conventional cells thick, in vacuum along z."""
    atoms = bulk("NaCl", "rocksalt", a=NACL, cubic=True).repeat((1, 1, cells))
    atoms.pbc = (True, True, False)
    return atoms


def salt_water(distance: float, n_waters: int = 60) -> Atoms:
    """Return a droplet of water with Na⁺ and Cl⁻ inside, in Å apart; those two atoms come last."""
    box = water_box(216, density=1.0, seed=0)
    oxygens = box[::3] if box.symbols[0] == "O" else box[box.symbols == "O"]
    middle = box.positions.mean(0)
    ions = middle + np.array([[-distance / 2, 0, 0], [distance / 2, 0, 0]])
    rank = np.linalg.norm(oxygens.positions[:, None] - ions, axis=2)
    free = np.flatnonzero(rank.min(1) > 2.4)
    chosen = free[np.argsort(rank.sum(1)[free])[:n_waters]]
    molecules = [box[3 * i : 3 * i + 3] for i in chosen]
    droplet = sum(molecules[1:], start=molecules[0])
    droplet += Atoms("NaCl", ions)
    droplet.set_pbc(False)
    droplet.cell = np.zeros((3, 3))
    return droplet
