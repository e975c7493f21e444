"""Spectra: a harmonic oscillator at its wavenumber, with its infrared intensity."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units

from phicalc.analysis.dipole import itinerant_dipole
from phicalc.analysis.spectra import infrared_spectrum, vibrational_density
from phicalc.units import KM_PER_MOL_PER_SQUARE_CHARGE_PER_AMU, WAVENUMBER_PER_INVERSE_FS

from .runs import trajectory_of

TEMPERATURE = 400.0


def oscillator(wavenumber: float, charge: float, *, velocities: bool, pbc: bool = False):
    """HF that vibrates along z as a classical oscillator of mean energy k_B T."""
    atoms = Atoms("HF", cell=[8.0] * 3 if pbc else None, pbc=pbc)
    interval, n_frames = 1.0, 6000
    masses = atoms.get_masses()
    reduced = masses.prod() / masses.sum()
    omega = 2 * np.pi * wavenumber / WAVENUMBER_PER_INVERSE_FS  # 1/fs
    # ½ μ ω² A² = k_B T, in ASE's units of time
    amplitude = np.sqrt(2 * units.kB * TEMPERATURE / reduced) / (omega / units.fs)
    times = np.arange(n_frames) * interval
    stretch = 0.92 + amplitude * np.cos(omega * times)
    rate = -amplitude * omega * np.sin(omega * times)
    shares = np.array([-masses[1], masses[0]]) / masses.sum()
    positions, speeds = np.zeros((2, n_frames, 2, 3))
    positions[..., 2] = 4 + stretch[:, None] * shares
    speeds[..., 2] = rate[:, None] * shares
    return trajectory_of(
        atoms, positions, interval, velocities=speeds if velocities else None,
        charges=np.array([charge, -charge]),
    ), reduced  # fmt: skip


@pytest.mark.parametrize("velocities", [True, False])
@pytest.mark.parametrize("wavenumber", [500.0, 3000.0])
def test_density_of_states_peaks_at_the_oscillator(wavenumber, velocities):
    trajectory, _ = oscillator(wavenumber, 0.4, velocities=velocities)
    found = vibrational_density(trajectory)
    width = found["H"].wavenumbers[1]
    total = found["H"].values + found["F"].values
    assert found["H"].wavenumbers[np.argmax(total)] == pytest.approx(wavenumber, abs=width)
    assert total.sum() * width == pytest.approx(1.0, rel=0.02)
    masses = trajectory.atoms.get_masses()  # the lighter atom does most of the motion
    assert found["H"].values.sum() / total.sum() == pytest.approx(masses[1] / masses.sum())


@pytest.mark.parametrize("wavenumber", [700.0, 3500.0])
def test_infrared_line_has_its_place_and_strength(wavenumber):
    charge = 0.4
    trajectory, reduced = oscillator(wavenumber, charge, velocities=True)
    found = infrared_spectrum(trajectory, itinerant_dipole(trajectory), TEMPERATURE)
    width = found.wavenumbers[1]
    assert found.wavenumbers[np.argmax(found.values)] == pytest.approx(wavenumber, abs=width)
    # The energy of one classical mode is k_B T: (∂μ/∂Q)² = charge²/μ gives the intensity.
    exact = KM_PER_MOL_PER_SQUARE_CHARGE_PER_AMU * charge**2 / reduced
    assert found.values.sum() * width == pytest.approx(exact, rel=0.03)


def test_absorption_of_a_cell_is_the_same_per_volume():
    one, _ = oscillator(2000.0, 0.4, velocities=True)
    cell, _ = oscillator(2000.0, 0.4, velocities=True, pbc=True)
    molar = infrared_spectrum(one, itinerant_dipole(one), TEMPERATURE)
    found = infrared_spectrum(cell, itinerant_dipole(cell), TEMPERATURE)
    per_area = molar.values / 602.214076  # km/mol per cm⁻¹ in Å²
    np.testing.assert_allclose(found.values, per_area / 8**3 * 1e8, rtol=1e-6, atol=1e-9)


def test_coarse_short_or_senseless_runs_are_refused():
    trajectory, _ = oscillator(500.0, 0.4, velocities=True)
    moments = itinerant_dipole(trajectory)
    with pytest.raises(ValueError, match=r"frames are 10 fs apart; .* need one every 4\.3 fs"):
        vibrational_density(trajectory._replace(interval=10.0))
    with pytest.raises(ValueError, match="59 frames are too few"):
        vibrational_density(trajectory.late(1 - 59 / 6000))
    with pytest.raises(ValueError, match="above 0 K"):
        infrared_spectrum(trajectory, moments, 0.0)
    slab = trajectory.atoms.copy()
    slab.pbc = [True, True, False]
    with pytest.raises(ValueError, match="a slab or wire"):
        infrared_spectrum(trajectory._replace(atoms=slab), moments, 300.0)
