"""Boxes of water to start from."""

import numpy as np
from ase import Atoms
from ase.build import molecule
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from phicalc.units import GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM

#: Fractional sites of the simple, body-centered and face-centered cubic lattices.
LATTICES = (
    np.zeros((1, 3)),
    np.array([[0, 0, 0], [1, 1, 1]]) / 2,
    np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2,
)

#: Distance between nearest sites of each lattice, for a cube of edge 1.
LATTICE_SPACINGS = (1.0, np.sqrt(3) / 2, np.sqrt(2) / 2)

#: Molecules closer than this (O–O, Å) are not a sensible start for dynamics.
SMALLEST_OXYGEN_DISTANCE = 2.4


def water_box(n_molecules: int = 64, density: float = 1.0, seed: int = 0) -> Atoms:
    """Return a periodic cube of water molecules: sites of a lattice, random orientations.

    The molecules stand on the cubic lattice that keeps them farthest apart, each turned to the
    best of many random orientations, so that no two atoms of different molecules collide and
    dynamics can start at once. It is an ordered start, not a liquid: equilibrate it.

    Parameters
    ----------
    n_molecules
        Number of molecules. m³, 2m³ and 4m³ fill a lattice; others leave sites empty.
    density
        Mass density in g/cm³.
    seed
        Same seed, same box.

    Raises
    ------
    ValueError
        If `n_molecules` or `density` is not positive, or the box would be too dense to start from.
    """
    if n_molecules < 1 or not density > 0:
        raise ValueError(
            f"n_molecules and density (g/cm³) must be positive, got {n_molecules} and {density}"
        )
    rng = np.random.default_rng(seed)
    water = molecule("H2O")
    water.positions -= water.positions[0]
    volume_of_one = water.get_masses().sum() / density * GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM
    length = (n_molecules * volume_of_one) ** (1 / 3)
    fractions, spacing = _lattice_sites(n_molecules)
    if n_molecules > 1 and spacing * length < SMALLEST_OXYGEN_DISTANCE:
        raise ValueError(
            f"density {density} g/cm³ puts {n_molecules} molecules {spacing * length:.2f} Å apart; "
            f"at least {SMALLEST_OXYGEN_DISTANCE} Å are needed: lower the density"
        )
    chosen = np.sort(rng.permutation(len(fractions))[:n_molecules])
    centers = fractions[chosen] * length
    positions = _orient(centers, water.positions, length, rng)
    symbols = list(water.symbols) * n_molecules
    return Atoms(symbols, positions.reshape(-1, 3), cell=[length] * 3, pbc=True)


def _lattice_sites(n_sites: int) -> tuple[Float[np.ndarray, "n_found 3"], float]:
    """Sites in a unit cube (at least `n_sites`), and their spacing, of the roomiest lattice."""

    def spacing_and_repeats(basis: Float[np.ndarray, "n 3"], spacing: float) -> tuple[float, int]:
        repeats = int(np.ceil(round((n_sites / len(basis)) ** (1 / 3), 9)))
        return spacing / repeats, repeats

    candidates = map(spacing_and_repeats, LATTICES, LATTICE_SPACINGS)
    (spacing, repeats), basis = max(
        zip(candidates, LATTICES, strict=True), key=lambda pair: pair[0][0]
    )
    corners = np.stack(np.meshgrid(*[np.arange(repeats)] * 3, indexing="ij"), axis=-1)
    return ((corners.reshape(-1, 1, 3) + basis) / repeats).reshape(-1, 3), float(spacing)


def _orient(
    centers: Float[np.ndarray, "n_molecules 3"],
    shape: Float[np.ndarray, "n_atoms 3"],
    length: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n_molecules n_atoms 3"]:
    """Turn the molecules one by one to the orientation that keeps neighbors farthest apart."""
    n_trials, n_sweeps = 60, 2
    n_molecules = len(centers)
    turned = Rotation.random(n_molecules, rng=rng).as_matrix()
    positions = centers[:, None] + shape @ turned.transpose(0, 2, 1)
    if n_molecules == 1:
        return positions
    for current in np.tile(np.arange(n_molecules), n_sweeps):
        others = np.delete(positions, current, axis=0).reshape(-1, 3)
        matrices = Rotation.random(n_trials, rng=rng).as_matrix()
        trials = centers[current] + shape @ matrices.transpose(0, 2, 1)
        trials = np.concatenate([positions[current][None], trials])
        vectors = trials[:, :, None] - others
        vectors -= length * np.round(vectors / length)
        closest = np.linalg.norm(vectors, axis=-1).min(axis=(1, 2))
        positions[current] = trials[np.argmax(closest)]
    return positions
