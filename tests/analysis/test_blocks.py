"""Errors of averages: known correlated series."""

from __future__ import annotations

import numpy as np
import pytest

from phicalc.analysis.blocks import block_average, jackknife, mean_of_blocks


def autoregressive(rng, n: int, memory: float) -> np.ndarray:
    """x_t = memory x_{t−1} + noise: variance 1 / (1 − memory²), a known error of the mean."""
    values, noise = np.empty(n), rng.normal(size=n)
    values[0] = noise[0] / np.sqrt(1 - memory**2)
    for i in range(1, n):
        values[i] = memory * values[i - 1] + noise[i]
    return values


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_error_of_a_correlated_series_is_the_analytic_one(memory, rng):
    n = 2**15
    found = [block_average(autoregressive(rng, n, memory)) for _ in range(8)]
    exact = 1 / (1 - memory) / np.sqrt(n)
    assert np.mean([estimate.error for estimate in found]) == pytest.approx(exact, rel=0.15)
    assert all(estimate.converged for estimate in found)
    assert np.mean([abs(estimate.value) < 2 * estimate.error for estimate in found]) > 0.7


def test_a_run_shorter_than_its_memory_says_so(rng):
    assert not block_average(autoregressive(rng, 64, 0.99)).converged
    short = block_average(np.array([1.0, 2.0, 3.0]))
    assert short.value == 2.0
    assert np.isnan(short.error)
    with pytest.raises(ValueError, match="at least one value"):
        block_average(np.array([]))


def test_jackknife_of_a_mean_is_its_standard_error(rng):
    values = rng.normal(size=4000)
    found = jackknife(lambda samples: float(values[samples].mean()), len(values), n_blocks=40)
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(1 / np.sqrt(4000), rel=0.3)
    assert np.isnan(jackknife(lambda samples: 1.0, 5).error)


def test_blocks_have_mean_and_standard_error():
    mean, error = mean_of_blocks(np.array([[1.0, 4.0], [3.0, 4.0]]))
    np.testing.assert_allclose(mean, [2.0, 4.0])
    np.testing.assert_allclose(error, [1.0, 0.0])
    assert np.isnan(mean_of_blocks(np.ones((1, 2)))[1]).all()
