from __future__ import annotations

import pytest
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from phicalc.data.pairs import Pair, fit_forces, fit_stress, similar_pairs

from .near_frames import crystals, labelled, molecules


def test_sound_labels_have_slope_one(rng):
    pairs = similar_pairs([labelled(atoms) for atoms in molecules(rng)])
    fit = fit_forces(pairs)
    assert fit is not None
    assert fit.slope == pytest.approx(1, abs=0.1)
    assert fit.correlation > 0.97
    assert max(pair.distance for pair in pairs) < 0.12  # turned onto one another
    assert fit_stress(pairs) is None
    fit = fit_forces(similar_pairs([labelled(atoms) for atoms in crystals()]))
    assert fit is not None
    assert fit.slope == pytest.approx(1, abs=0.1)
    pairs = similar_pairs([labelled(atoms) for atoms in crystals(strain=0.01)])
    fit = fit_stress(pairs)
    assert fit is not None
    assert fit.slope == pytest.approx(1, abs=0.1)
    assert fit.correlation > 0.98


def test_wrong_units_and_signs_show_in_the_slope(rng):
    fit = fit_forces(similar_pairs([labelled(a, energy=1 / 27.2) for a in molecules(rng)]))
    assert fit is not None
    assert 1 / fit.slope == pytest.approx(27.2, rel=0.1)
    fit = fit_forces(similar_pairs([labelled(a, forces=-1.0) for a in crystals()]))
    assert fit is not None
    assert fit.slope == pytest.approx(-1, abs=0.1)
    fit = fit_stress(similar_pairs([labelled(a, stress=-160.2) for a in crystals(strain=0.01)]))
    assert fit is not None
    assert 1 / fit.slope == pytest.approx(-160.2, rel=0.1)


def test_pairs_have_the_same_atoms(rng):
    frames = [labelled(atoms) for atoms in [*molecules(rng, 3), *crystals(2), bulk("Cu")]]
    assert {(pair.first, pair.second) for pair in similar_pairs(frames)} == {
        (0, 1), (0, 2), (1, 2), (3, 4),
    }  # fmt: skip
    assert fit_forces(similar_pairs(frames)) is None  # too few to say anything
    other = frames[1]._replace(total_charge=1.0)
    assert (0, 1) not in {(p.first, p.second) for p in similar_pairs([frames[0], other])}


def test_turned_and_shifted_copies_are_at_distance_zero(rng):
    first = molecule("CH3CH2OH")
    second = first.copy()
    second.positions = first.positions @ Rotation.random(rng=rng).as_matrix() + 5
    mirror = first.copy()
    mirror.positions[:, 0] *= -1
    mirror.positions += 0.3 * rng.normal(size=(9, 3))  # no longer its own mirror image
    image = mirror.copy()
    image.positions[:, 1] *= -1
    (pair,) = similar_pairs([labelled(first), labelled(second)])
    assert pair.distance < 1e-6
    (pair,) = similar_pairs([labelled(mirror), labelled(image)])
    assert pair.distance > 0.1
    copper = bulk("Cu", cubic=True)
    wrapped = copper.copy()
    wrapped.positions += [1.1, 2.2, 3.3]
    wrapped.wrap()
    (pair,) = similar_pairs([labelled(copper), labelled(wrapped)])
    assert pair.distance < 1e-6


def test_near_pairs_decide_in_whatever_order_they_come():
    near = [Pair(0, 1, 0.02, 1.0, 1.0, 0.0) for _ in range(40)]
    far = [Pair(0, 1, 0.08, -3.0, 1.0, 0.0) for _ in range(40)]
    assert fit_forces(near + far).slope == fit_forces(far + near).slope == 1
