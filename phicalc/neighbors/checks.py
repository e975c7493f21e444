"""Check positions and cell, and give open axes a vector."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float64, Shaped
from numpy import ndarray
from torch import Tensor

from phicalc.neighbors.record import Box

#: Longest coordinate in Å (10 cm): beyond it rounding reaches 1e-7 Å.
FARTHEST = 1e9


def as_numpy(
    name: str, value: object, shape: tuple[int | None, ...], dtype: torch.dtype
) -> Shaped[ndarray, "..."]:
    """Return the values of a tensor after checking its shape (None: any size) and dtype.

    Raises
    ------
    ValueError
        If it is no tensor, or of another shape or dtype.
    """
    wanted = f"({', '.join('n_atoms' if n is None else str(n) for n in shape)})"
    message = f"`{name}` must be a tensor of shape {wanted} and dtype {dtype}, got "
    if not isinstance(value, Tensor):
        raise ValueError(message + type(value).__name__)
    sizes = tuple(value.shape)
    fits = len(sizes) == len(shape) and all(
        m in (None, n) for n, m in zip(sizes, shape, strict=True)
    )
    if not fits or value.dtype != dtype:
        raise ValueError(message + f"shape {sizes} and dtype {value.dtype}")
    return value.detach().cpu().numpy()


def check_finite(positions: Float64[ndarray, "n_atoms 3"], cell: Float64[ndarray, "3 3"]) -> None:
    """Raise for NaN and infinity; positions and cell are in Å.

    Raises
    ------
    ValueError
        With the atoms that are not at a finite place, or the cell, which may be too long as well.
    """
    if not np.isfinite(positions).all():
        atoms = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        shown = ", ".join(map(str, atoms[:10])) + (", …" if len(atoms) > 10 else "")
        raise ValueError(
            f"`positions` must be finite, got NaN or infinity for atoms {shown} "
            f"({len(atoms)} of {len(positions)}); correct the structure, or if this is a "
            "simulation that exploded, shorten its time step"
        )
    if not np.isfinite(cell).all():
        raise ValueError(f"`cell` must be finite, got {cell.tolist()}")
    if np.abs(cell).max() > FARTHEST:
        raise ValueError(
            f"`cell` must be shorter than {FARTHEST:.0e} Å, got {cell.tolist()}; check the unit"
        )


def make_box(cell: Float64[ndarray, "3 3"], pbc: Bool[ndarray, "3"]) -> Box:
    """Replace the vectors of open axes, which may be zero or anything, and invert (all in Å).

    Raises
    ------
    ValueError
        If the cell has no volume along its periodic axes.
    """
    n_periodic = int(pbc.sum())
    _, sizes, axes = np.linalg.svd(cell[pbc])
    if n_periodic and sizes[-1] <= 1e-10 * sizes[0]:
        raise ValueError(
            f"`cell` has no volume along its periodic axes: pbc {pbc.tolist()}, "
            f"cell {cell.tolist()}; set a cell, or pbc to False where the structure is open"
        )
    vectors = cell.copy()
    vectors[~pbc] = axes[n_periodic:]
    inverse = np.linalg.inv(vectors)
    return Box(vectors, inverse, 1 / np.linalg.norm(inverse, axis=0), pbc)


def check_size(positions: Float64[ndarray, "n_atoms 3"], box: Box, cutoff: float) -> float:
    """Return a bound of the error of distances, in Å; positions and cutoff are in Å, too.

    Raises
    ------
    ValueError
        If the structure would exhaust memory or integers: a tiny cell, atoms far away.
    """
    n_images = math.prod(2 * math.ceil(cutoff / h) + 1 for h in box.heights[box.periodic])
    if n_images > 1_000_000:
        raise ValueError(
            f"`cell` is too small for a cutoff of {cutoff} Å: the distances between its faces, "
            f"{box.heights[box.periodic].tolist()} Å, need {n_images} images; check the unit"
        )
    farthest = float(np.abs(positions).max(initial=0.0))
    # Engines count images in 32 bits.
    limit = min([FARTHEST, *(2.0**29 * box.heights[box.periodic]).tolist()])
    if farthest > limit:
        raise ValueError(
            f"`positions` must lie within {limit:.3g} Å of the origin, got {farthest:.3g} Å; wrap "
            "the atoms into the cell, or if this is a simulation that exploded, shorten its time "
            "step"
        )
    # Rounding while an engine moves atoms through a skewed cell, with room to spare.
    skew = float((np.linalg.norm(box.vectors, axis=1) / box.heights).max())
    return 1e-9 * cutoff + 1e-13 * skew * farthest
