"""Elastic constants: cubic symmetry, isotropic moduli, and the bulk modulus of the pressure."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from phicalc.properties import elastic_constants, equation_of_state
from phicalc.properties.elastic import _moduli


def copper():
    volume = equation_of_state(bulk("Cu", a=3.6), EMT(), strain=0.03).volume
    atoms = bulk("Cu", a=(4 * volume) ** (1 / 3))
    atoms.calc = EMT()
    return atoms


def test_copper_is_cubic_in_any_orientation():
    atoms = copper()
    found = elastic_constants(atoms)
    c11, c12, c44 = found.stiffness[0, 0], found.stiffness[0, 1], found.stiffness[3, 3]
    expected = np.full((3, 3), c12) + (c11 - c12) * np.eye(3)
    np.testing.assert_allclose(found.stiffness[:3, :3], expected, atol=1e-8)
    np.testing.assert_allclose(found.stiffness[3:, 3:], c44 * np.eye(3), atol=1e-8)
    assert found.space_group == "Fm-3m (225)"
    assert found.stable
    assert found.asymmetry < 3
    assert found.bulk_modulus == pytest.approx((c11 + 2 * c12) / 3)
    fitted = equation_of_state(atoms, strain=0.02).bulk_modulus
    assert found.bulk_modulus == pytest.approx(fitted, rel=0.03)
    turned = atoms.copy()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    again = elastic_constants(turned, EMT())
    for name in ("bulk_modulus", "shear_modulus", "young_modulus"):
        assert getattr(again, name) == pytest.approx(getattr(found, name), rel=0.01)
    assert not np.allclose(again.stiffness, found.stiffness, rtol=0.05)


def test_central_forces_obey_cauchy():
    """Pair potentials in a cubic crystal at zero stress: C12 = C44."""
    pair = LennardJones(sigma=2.5, epsilon=0.2, rc=9.0, ro=8.0, smooth=True)
    volume = equation_of_state(bulk("Cu", a=3.9), pair, strain=0.1).volume
    found = elastic_constants(bulk("Cu", a=(4 * volume) ** (1 / 3)), pair, strain=0.002)
    assert found.stiffness[0, 1] == pytest.approx(found.stiffness[3, 3], rel=0.03)


def test_moduli_of_an_isotropic_solid():
    bulk_modulus, shear = 100.0, 40.0
    stiffness = np.zeros((6, 6))
    stiffness[:3, :3] = bulk_modulus - 2 / 3 * shear
    stiffness[np.diag_indices(6)] += [2 * shear] * 3 + [shear] * 3
    found = _moduli(stiffness, np.zeros((6, 6)), 0.0, "")
    assert found.bulk_bounds == pytest.approx((bulk_modulus, bulk_modulus))
    assert found.shear_bounds == pytest.approx((shear, shear))
    assert found.young_modulus == pytest.approx(9 * 100 * 40 / (300 + 40))
    assert found.poisson_ratio == pytest.approx((300 - 80) / (2 * 340))
    assert found.stable
    assert not _moduli(stiffness - 300 * np.eye(6), np.zeros((6, 6)), 0.0, "").stable


def test_senseless_requests_are_refused():
    with pytest.raises(ValueError, match="three directions"):
        elastic_constants(molecule("CO"), EMT())
    with pytest.raises(ValueError, match="strain must lie between"):
        elastic_constants(bulk("Cu"), EMT(), strain=0.5)
    rattled = bulk("Cu", a=3.6, cubic=True)
    rattled.rattle(0.1, seed=1)
    with pytest.raises(UserWarning, match=r"not at a minimum: relax it first"):
        elastic_constants(rattled, EMT())
