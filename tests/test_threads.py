"""Calculators that threads share: every thread gets the results of its own structure."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase.build import molecule

from phicalc import CommitteeCalculator, PhiCalculator
from phicalc.potential import build_potential

from .tiny import flat_config


def models(n: int) -> list:
    config = flat_config(elements=("H", "C", "O"), cutoff=3.0, channels=4, l_max=1, layers=1)
    return [build_potential(config, seed=seed) for seed in range(1, n + 1)]


CALCULATORS = {
    "one": lambda: PhiCalculator(models(1)[0], device="cpu", dtype="float64"),
    "committee": lambda: CommitteeCalculator(models(2), device="cpu", dtype="float64"),
}


@pytest.mark.parametrize("kind", CALCULATORS)
def test_threads_share_a_calculator(kind: str) -> None:
    names = ["H2O", "CH4", "CO2", "CH3OH", "H2", "C2H6", "CO", "C2H4"] * 2
    frames = [molecule(name) for name in names]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
    alone = CALCULATORS[kind]()
    expected = [(alone.get_potential_energy(atoms), alone.get_forces(atoms)) for atoms in frames]
    shared = CALCULATORS[kind]()

    def compute(atoms):
        atoms.calc = shared
        return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_charges()

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(compute, frames))
    for (energy, forces, charges), (right, pulls), atoms in zip(
        found, expected, frames, strict=True
    ):
        assert energy == pytest.approx(right, abs=1e-9)
        np.testing.assert_allclose(forces, pulls, atol=1e-9)
        assert len(charges) == len(atoms)


@pytest.mark.parametrize("kind", CALCULATORS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_have_locks_of_their_own(kind: str, copied) -> None:
    calc = CALCULATORS[kind]()
    energy = calc.get_potential_energy(molecule("H2O"))
    other = copied(calc)
    assert other.lock is not calc.lock
    with calc.lock:
        assert other.get_potential_energy(molecule("H2O")) == energy
