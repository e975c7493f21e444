"""Statistical errors of averages over a run: neighboring frames are no independent samples."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

#: Fewer blocks than this say nothing about a spread.
FEWEST_BLOCKS = 4


class Estimate(NamedTuple):
    """An average with its statistical error."""

    value: float
    error: float
    """Standard error; NaN where the run is too short to tell."""
    converged: bool = True
    """Whether longer blocks leave the error as it is. If not, the true error may be larger."""


def block_average(values: Float[np.ndarray, " n"]) -> Estimate:
    """Mean of a correlated series with the standard error of Flyvbjerg and Petersen.

    Neighbors are averaged in pairs, again and again. The error estimated from the blocks grows as
    long as blocks are correlated, and stays where they are independent: the first level at which
    the next two do not exceed it by more than their own uncertainty is taken.

    Parameters
    ----------
    values
        Series at equal intervals, shape (n,).

    Raises
    ------
    ValueError
        If the series is empty.

    References
    ----------
    Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989), doi:10.1063/1.457480.
    """
    blocks = np.asarray(values, dtype=float)
    if not blocks.size:
        raise ValueError("block_average needs at least one value, got an empty series")
    mean = float(blocks.mean())
    errors, uncertainties = [], []
    while len(blocks) >= FEWEST_BLOCKS:
        error = blocks.std(ddof=1) / np.sqrt(len(blocks))
        errors.append(error)
        uncertainties.append(error / np.sqrt(2 * (len(blocks) - 1)))
        blocks = blocks[: len(blocks) // 2 * 2].reshape(-1, 2).mean(axis=1)
    if not errors:
        return Estimate(mean, np.nan, False)
    for level in range(len(errors) - 2):
        if all(errors[i] <= errors[level] + uncertainties[i] for i in (level + 1, level + 2)):
            return Estimate(mean, float(errors[level]), True)
    return Estimate(mean, float(max(errors)), False)


def jackknife(
    function: Callable[[Int[np.ndarray, " n_chosen"]], float], n_samples: int, n_blocks: int = 8
) -> Estimate:
    """Value of a function of a whole series, with the error of leaving out block after block.

    For what is no mean: slopes, variances. The blocks must be longer than the correlation time.

    Parameters
    ----------
    function
        Takes the indices of the samples to use, shape (n,).
    n_samples
        Length of the series.
    n_blocks
        Number of contiguous blocks; fewer if there are not two samples for each.

    References
    ----------
    Efron and Stein, Ann. Stat. 9, 586 (1981), doi:10.1214/aos/1176345462.
    """
    everything = np.arange(n_samples)
    value = float(function(everything))
    n_blocks = min(n_blocks, n_samples // 2)
    if n_blocks < FEWEST_BLOCKS:
        return Estimate(value, np.nan, False)
    block = everything * n_blocks // n_samples
    partial = np.array([function(everything[block != left_out]) for left_out in range(n_blocks)])
    error = np.sqrt((n_blocks - 1) * np.mean((partial - partial.mean()) ** 2))
    return Estimate(value, float(error), True)


def mean_of_blocks(
    values: Float[np.ndarray, "n_blocks ..."],
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Mean and standard error over the first axis: one entry for each of some long blocks."""
    values = np.asarray(values, dtype=float)
    mean = np.asarray(values.mean(axis=0))
    if len(values) < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, np.asarray(values.std(axis=0, ddof=1) / np.sqrt(len(values)))
