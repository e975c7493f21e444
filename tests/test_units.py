"""Constants against CODATA 2018 values written out."""

from __future__ import annotations

import pytest

from phicalc import units


def test_constants_are_codata() -> None:
    # e²/(4πε₀) = α ħ c: 7.2973525693e-3 × 1973.269804 eV Å
    assert pytest.approx(7.2973525693e-3 * 1973.269804, rel=1e-8) == units.COULOMB_CONSTANT
    assert pytest.approx(160.21766340, rel=1e-8) == units.GPA_PER_EV_PER_CUBIC_ANGSTROM
    density = units.GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM
    assert pytest.approx(1.66053906660, rel=1e-8) == density


def test_written_constants_are_those_of_scipy() -> None:
    scipy = pytest.importorskip("scipy.constants")
    for name, value in units.constants._asdict().items():
        # the versions of CODATA that scipy has had differ in the ninth digit of ε₀ and u
        assert value == pytest.approx(getattr(scipy, name), rel=2e-9)
