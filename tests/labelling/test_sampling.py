from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms

from phicalc.labelling.calculators import CalculatorSpec
from phicalc.labelling.sampling import DynamicsSampler, GivenStructures, RattleSampler

SPEC = CalculatorSpec("ase.calculators.emt:EMT")


def crystal():
    atoms = bulk("Cu", cubic=True)
    atoms.info["charge"] = 0.0
    return atoms


def test_numbers_of_frames():
    structures = [crystal(), crystal()]
    assert len(GivenStructures().chains(structures)) == 2
    assert len(RattleSampler(copies=3).chains(structures)) == 6
    chains = DynamicsSampler(temperatures=(100.0, 200.0), frames=7, copies=3).chains(structures)
    assert len(chains) == 12
    assert {chain.n_frames for chain in chains} == {7}
    assert len({chain.seed for chain in chains}) == 12


def test_rattling_has_the_size_that_was_asked_for():
    atoms = bulk("Cu").repeat(6)
    sampler = RattleSampler(copies=40, displacement=0.05, strain=0.0)
    frames = [sampler.advance(chain, 0, atoms, SPEC) for chain in sampler.chains([atoms])]
    shifts = np.array([frame.positions - atoms.positions for frame in frames])
    assert shifts.std() == pytest.approx(0.05, rel=0.02)
    sampler = RattleSampler(copies=200, displacement=0.0, strain=0.02)
    strains = []
    for chain in sampler.chains([atoms]):
        frame = sampler.advance(chain, 0, atoms, SPEC)
        strain = np.linalg.solve(atoms.cell.array, frame.cell.array) - np.eye(3)
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
        strains.append(strain)
    spread = np.std(strains, axis=0)
    assert spread[0, 1] == pytest.approx(0.02, rel=0.15)
    assert spread[0, 0] == pytest.approx(0.02 * np.sqrt(2), rel=0.15)


def test_open_directions_are_not_strained():
    slab = fcc111("Cu", (2, 2, 2), vacuum=5.0)
    sampler = RattleSampler(copies=1, displacement=0.0, strain=0.05)
    frame = sampler.advance(sampler.chains([slab])[0], 0, slab, SPEC)
    np.testing.assert_allclose(frame.positions[:, 2], slab.positions[:, 2])
    np.testing.assert_allclose(frame.cell[2], slab.cell[2])
    assert not np.allclose(frame.cell[0], slab.cell[0])
    water = molecule("H2O")
    frame = sampler.advance(sampler.chains([water])[0], 0, water, SPEC)
    np.testing.assert_allclose(frame.positions, water.positions)


def test_dynamics_reaches_its_temperature_and_repeats():
    atoms = crystal().repeat(2)
    sampler = DynamicsSampler(temperatures=(400.0,), frames=30, interval=4, timestep=5.0)
    (chain,) = sampler.chains([atoms])
    frame, kelvins = atoms, []
    for index in range(chain.n_frames):
        again = sampler.advance(chain, index, frame, SPEC)
        frame = sampler.advance(chain, index, frame, SPEC)
        np.testing.assert_array_equal(again.positions, frame.positions)
        kelvins.append(frame.get_temperature())
    assert np.mean(kelvins[8:]) == pytest.approx(400, rel=0.15)
    assert np.abs(frame.positions - atoms.positions).max() > 0.05


def test_fixed_atoms_move_in_sampling():
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0, 1, 2, 3]))
    for sampler in (RattleSampler(copies=1), DynamicsSampler(frames=1, interval=2)):
        frame = sampler.advance(sampler.chains([atoms])[0], 0, atoms, SPEC)
        assert not np.allclose(frame.positions, atoms.positions)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (RattleSampler, {"copies": 0}, "'copies' must be ≥ 1, got 0"),
        (RattleSampler, {"strain": -1.0}, "'strain' must be ≥ 0, got -1"),
        (
            DynamicsSampler,
            {"temperatures": (300.0, -1.0)},
            r"'temperatures\[1\]' must be positive, got -1",
        ),
        (DynamicsSampler, {"interval": 0}, "'interval' must be ≥ 1, got 0"),
    ],
)
def test_impossible_settings(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)
