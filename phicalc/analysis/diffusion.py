"""Mean squared displacements, and the diffusion coefficients they grow by."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from phicalc.analysis.blocks import Estimate, mean_of_blocks
from phicalc.analysis.trajectory import Trajectory
from phicalc.units import NANO_SI_PER_SQUARE_ANGSTROM_PER_FS

#: The slope is taken between these parts of the length of a block.
FIT_WINDOW = (0.1, 0.5)
#: Pieces of the run that are taken for independent of one another.
N_BLOCKS = 4
#: Displacements that grow as t to the power of 1 ± this are those of diffusion.
DIFFUSIVE = 0.2
#: Å²: smaller mean squared displacements may be those of atoms that rattle among their neighbors.
OUT_OF_PLACE = 1.0


class Diffusion(NamedTuple):
    """Motion of the atoms of one element."""

    symbol: str
    lags: Float[np.ndarray, " n_lags"]
    """fs, (n_lags,)."""
    displacement: Float[np.ndarray, " n_lags"]
    """Mean squared displacement in Å² along the periodic directions, (n_lags,)."""
    error: Float[np.ndarray, " n_lags"]
    """Its standard error, (n_lags,)."""
    coefficient: Estimate
    """Diffusion coefficient in 1e-9 m²/s."""
    exponent: float
    """Power of time by which displacements grow where the slope was taken; 1 for diffusion."""

    @property
    def diffusive(self) -> bool:
        """Whether atoms have left their places, and displacements grow in proportion to time."""
        left = bool(self.displacement[-1] > OUT_OF_PLACE)
        return left and abs(self.exponent - 1) < DIFFUSIVE


def diffusion(trajectory: Trajectory) -> list[Diffusion]:
    """Mean squared displacement and diffusion coefficient of every element.

    The run is cut into `N_BLOCKS` blocks; in each, all origins of time count, and the coefficient
    is that of Einstein, slope / 2d between a tenth and half of the block's length, with d the
    number of periodic directions. Values and errors are mean and standard error over the blocks.
    The motion of the center of mass is taken off. Where the cell moves, displacements are those of
    the fractional coordinates in the mean cell: the breathing of the cell is no diffusion.

    In a periodic box of edge L the coefficient comes out too small by 2.837 kT / 6πηL, with η the
    viscosity; that correction is not applied, since η is not known here.

    Raises
    ------
    ValueError
        Where diffusion is not defined, with the reason.

    References
    ----------
    Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004), doi:10.1021/jp0477147 (finite size);
    von Bülow, Bullerjahn and Hummer, J. Chem. Phys. 153, 021101 (2020), doi:10.1063/5.0008316
    (unwrapping at constant pressure).
    """
    n_lags = trajectory.n_frames // N_BLOCKS // 2
    _refuse_undefined(trajectory, n_lags)
    positions = _positions_along_periodic(trajectory)
    length = trajectory.n_frames // N_BLOCKS
    blocks = [positions[i * length : (i + 1) * length] for i in range(N_BLOCKS)]
    lags = np.arange(n_lags + 1) * trajectory.interval
    fitted = lags >= FIT_WINDOW[0] / FIT_WINDOW[1] * lags[-1]
    dimensions = int(trajectory.atoms.pbc.sum())
    found = []
    for symbol in trajectory.elements:
        of_element = trajectory.symbols == symbol
        curves = np.array([_displacement(block[:, of_element], n_lags) for block in blocks])
        slopes = np.polyfit(lags[fitted], curves[:, fitted].T, 1)[0]
        unit = NANO_SI_PER_SQUARE_ANGSTROM_PER_FS / (2 * dimensions)
        value, error = mean_of_blocks(slopes * unit)
        displacement, spread = mean_of_blocks(curves)
        coefficient = Estimate(float(value), float(error))
        exponent = _exponent(lags[fitted], displacement[fitted])
        found.append(Diffusion(symbol, lags, displacement, spread, coefficient, exponent))
    return found


def _exponent(lags: Float[np.ndarray, " n"], displacement: Float[np.ndarray, " n"]) -> float:
    """Slope of the logarithms."""
    if not np.all(displacement > 0):
        return 0.0
    return float(np.polyfit(np.log(lags), np.log(displacement), 1)[0])


def _refuse_undefined(trajectory: Trajectory, n_lags: int) -> None:
    """Say why there is no diffusion coefficient."""
    if not trajectory.atoms.pbc.any():
        raise ValueError("a structure without periodic directions does not diffuse endlessly")
    if len(trajectory.atoms) < 2:
        raise ValueError("a single atom is its own center of mass")
    if n_lags < 5:
        raise ValueError(
            f"{trajectory.n_frames} frames are too few: at least {10 * N_BLOCKS} are needed"
        )


def _positions_along_periodic(trajectory: Trajectory) -> Float[np.ndarray, "n_frames n_atoms 3"]:
    """Unwrapped positions in the mean cell about the center of mass, open directions left out."""
    cell = trajectory.cells.mean(axis=0)
    masses = trajectory.atoms.get_masses()
    scaled = trajectory.scaled
    scaled = scaled - np.einsum("fna,n->fa", scaled, masses / masses.sum())[:, None]
    return scaled @ cell @ periodic_projector(cell, trajectory.atoms.pbc)


def periodic_projector(
    cell: Float[np.ndarray, "3 3"], pbc: Bool[np.ndarray, "3"]
) -> Float[np.ndarray, "3 3"]:
    """Return the projector onto the space of the periodic lattice vectors (rows, in Å)."""
    basis, _ = np.linalg.qr(cell[pbc].T)
    return basis @ basis.T


def _displacement(
    positions: Float[np.ndarray, "n_frames n_atoms 3"], n_lags: int
) -> Float[np.ndarray, " n"]:
    """Mean squared displacement over atoms and all origins of time, for lags of 0 … n_lags frames.

    By ``|r(s+t) − r(s)|² = |r(s+t)|² + |r(s)|² − 2 r(s)·r(s+t)``, the last term by Fourier
    transforms: doi:10.1051/sfn/201112010.
    """
    n_frames = len(positions)
    positions = positions - positions.mean(axis=0)  # smaller numbers, the same differences
    power = np.abs(np.fft.rfft(positions, 2 * n_frames, axis=0)) ** 2
    products = np.fft.irfft(power.sum(axis=(1, 2)), 2 * n_frames)[: n_lags + 1]
    squares = np.append((positions**2).sum(axis=(1, 2)), 0.0)
    lags = np.arange(n_lags + 1)
    before = np.concatenate([[0.0], np.cumsum(squares[:n_frames])])
    both = before[n_frames] - before[lags] + before[n_frames - lags]
    return (both - 2 * products) / (n_frames - lags) / positions.shape[1]
