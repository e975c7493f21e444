"""Charges guessed from those of the steps before."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from phicalc.electrostatics import ChargeHistory


def curve(time: float, degree: int) -> np.ndarray:
    """Two charges that change like a polynomial of the time."""
    powers = time ** np.arange(degree + 1)
    return np.stack([powers.sum(), -2 * powers.sum()]) + np.array([0.3, -0.1])


@pytest.mark.parametrize("known", [1, 2, 3, 5])
def test_guess_continues_polynomials_through_the_known_steps(known: int) -> None:
    atoms, history = Atoms("HF"), ChargeHistory()
    degree = min(known, 3) - 1
    for step in range(known):
        history.add(atoms, curve(0.1 * step, degree))
    guess = history.guess(atoms)
    np.testing.assert_allclose(guess, curve(0.1 * known, degree), rtol=0, atol=1e-12)
    if known < 3:
        assert np.abs(guess - curve(0.1 * known, degree + 1)).max() > 1e-4


def test_nothing_is_known_at_first_or_of_other_atoms() -> None:
    atoms, history = Atoms("HF"), ChargeHistory()
    assert history.guess(atoms) is None
    history.add(atoms, np.array([0.5, -0.5]))
    assert history.guess(Atoms("FH")) is None
    assert history.guess(Atoms("HF", pbc=True, cell=[5, 5, 5])) is None
    moved = Atoms("HF", positions=[[0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(history.guess(moved), [0.5, -0.5])
    history.add(Atoms("FH"), np.array([0.1, -0.1]))
    assert history.guess(atoms) is None
    np.testing.assert_array_equal(history.guess(Atoms("FH")), [0.1, -0.1])


def test_what_was_remembered_cannot_be_changed_from_outside() -> None:
    atoms, history = Atoms("H"), ChargeHistory()
    charges = np.array([0.5])
    history.add(atoms, charges)
    charges[0] = 7.0
    history.guess(atoms)[0] = 7.0
    assert history.guess(atoms)[0] == 0.5
