"""Which frames are kept for validation and for test."""

import warnings
from collections.abc import Sequence

import numpy as np

from phicalc.data.config import DataConfig
from phicalc.data.frames import LabelledAtoms


def split_indices(config: DataConfig, pool: Sequence[LabelledAtoms]) -> tuple[list[int], list[int]]:
    """Return the indices in `pool` of the frames kept for validation and for test.

    Parameters
    ----------
    config
        How the frames are divided.
    pool
        All of them.

    Raises
    ------
    ValueError
        If no frame has the key by which the data are split.
    """
    if config.split == "files":
        return [], []
    if config.split == "key":
        return _split_by_key(config, pool)
    order = np.arange(len(pool))[::-1]
    if config.split == "random":
        order = np.random.default_rng(config.split_seed).permutation(len(pool))
    kept_out = order[: config.test_count + _valid_count(config, len(pool))].tolist()
    return sorted(kept_out[config.test_count :]), sorted(kept_out[: config.test_count])


def _split_by_key(
    config: DataConfig, pool: Sequence[LabelledAtoms]
) -> tuple[list[int], list[int]]:  # fmt: skip
    """Return the indices for validation and for test where the frames themselves tell."""
    values = [str(frame.atoms.info.get(config.split_key)) for frame in pool]
    valid = [i for i, value in enumerate(values) if value in config.valid_values]
    test = [i for i, value in enumerate(values) if value in config.test_values]
    if not valid and not test:
        raise ValueError(
            f"data.split is 'key', but no frame has info[{config.split_key!r}] among "
            f"{[*config.valid_values, *config.test_values]}; found {sorted(set(values))[:10]}"
        )
    if config.valid_values and not valid:
        warnings.warn(
            f"no frame has info[{config.split_key!r}] among data.valid_values "
            f"{[*config.valid_values]}, found {sorted(set(values))[:10]}: nothing is kept for "
            "validation. Set data.valid_values to [] to draw frames for it",
            stacklevel=4,
        )
    if not config.valid_values:
        rest = np.setdiff1d(np.arange(len(pool)), test)
        drawn = np.random.default_rng(config.split_seed).permutation(rest)
        valid = sorted(drawn[: _valid_count(config, len(rest))].tolist())
    return valid, test


def _valid_count(config: DataConfig, n_frames: int) -> int:
    """Return how many of `n_frames` are drawn for validation."""
    if config.valid_count is None:
        return round(config.valid_fraction * n_frames)
    return config.valid_count
