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


def test_units_of_other_programs_are_codata() -> None:
    assert pytest.approx(27.211386246, rel=1e-9) == units.EV_PER_HARTREE
    assert pytest.approx(0.04336410424, rel=1e-9) == units.EV_PER_KCAL_PER_MOL
    assert pytest.approx(51.42206747, rel=1e-9) == units.ATOMIC_FORCE
    assert pytest.approx(8.617333262e-5, rel=1e-9) == units.BOLTZMANN_CONSTANT
    assert pytest.approx(33.35640952, rel=1e-9) == units.WAVENUMBER_PER_THZ
    assert pytest.approx(1.239841984e-4, rel=1e-9) == units.EV_PER_WAVENUMBER
    assert pytest.approx(6.241509074e-7, rel=1e-9) == units.EV_PER_CUBIC_ANGSTROM_PER_BAR
    assert pytest.approx(2997.92458, rel=1e-12) == units.SPEED_OF_LIGHT
    assert pytest.approx(1e4, rel=1e-12) == units.NANO_SI_PER_SQUARE_ANGSTROM_PER_FS
    assert pytest.approx(0.0646541513, rel=1e-9) == units.PLANCK
