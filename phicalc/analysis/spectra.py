"""Spectra of motion: the vibrational density of states, and infrared absorption."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from phicalc.analysis.blocks import mean_of_blocks
from phicalc.analysis.trajectory import Trajectory
from phicalc.units import (
    BOLTZMANN_CONSTANT,
    COULOMB_CONSTANT,
    KM_PER_MOL_PER_SQUARE_ANGSTROM_PER_CM,
    SPEED_OF_LIGHT,
    WAVENUMBER_PER_INVERSE_FS,
)

#: fs: longer segments than this resolve lines that thermal motion has washed out.
LONGEST_SEGMENT = 4000.0
#: cm⁻¹: vibrations of bonds with hydrogen, and of all others, end below.
FASTEST_WITH_HYDROGEN, FASTEST = 3900.0, 2400.0


class Spectrum(NamedTuple):
    """A quantity against wavenumber."""

    wavenumbers: Float[np.ndarray, " n"]
    """cm⁻¹, (n,)."""
    values: Float[np.ndarray, " n"]
    """(n,)."""
    error: Float[np.ndarray, " n"]
    """Standard error over segments of the run, (n,)."""


def vibrational_density(trajectory: Trajectory) -> dict[str, Spectrum]:
    """Vibrational density of states by element, in 1/cm⁻¹: Fourier transform of ⟨v(0)·v(t)⟩.

    Velocities are weighted by mass, so that each classical mode counts the same; all elements
    together integrate to 1. Quantum effects on the nuclei are not in it.

    Raises
    ------
    ValueError
        If frames are too few or too far apart, with the reason.
    """
    _refuse_coarse(trajectory)
    velocities, differences = trajectory.velocities, False
    if velocities is None:
        velocities = np.diff(trajectory.positions, axis=0) / trajectory.interval
        differences = True
    masses = trajectory.atoms.get_masses()
    powers = {}
    for symbol in trajectory.elements:
        of_element = trajectory.symbols == symbol
        series = velocities[:, of_element] * np.sqrt(masses[of_element])[:, None]
        powers[symbol] = _power(series, trajectory, differences)
    wavenumbers = _wavenumbers(trajectory)
    total = sum(power.mean(axis=0).sum() for power in powers.values()) * wavenumbers[1]
    scale = 1 / total if total > 0 else 0.0
    return {
        symbol: Spectrum(wavenumbers, *mean_of_blocks(power * scale))
        for symbol, power in powers.items()
    }


def infrared_spectrum(
    trajectory: Trajectory, dipole: Float[np.ndarray, "n_frames 3"], temperature: float
) -> Spectrum:
    """Infrared absorption from the autocorrelation of the dipole's time derivative.

    .. math:: α(ω) n(ω) = (4π k_e / 6 c V k_B T) ∫ ⟨Ṁ(0)·Ṁ(t)⟩ e^{−iωt} dt

    In crystals and liquids α n in cm⁻¹; without periodic directions the molar absorption, whose
    integral over wavenumbers is in km/mol. Classical nuclei with the harmonic quantum correction.
    Neglected: what `phicalc.analysis.dipole.itinerant_dipole` neglects, and local fields.

    Parameters
    ----------
    trajectory
        Gives interval, volume and elements.
    dipole
        e Å, (n_frames, 3).
    temperature
        K.

    Raises
    ------
    ValueError
        If frames are too few or too far apart, or the structure is a slab or wire.

    References
    ----------
    Ramírez et al., J. Chem. Phys. 121, 3973 (2004), doi:10.1063/1.1774986.
    """
    _refuse_coarse(trajectory)
    pbc = trajectory.atoms.pbc
    if pbc.any() and not pbc.all():
        raise ValueError("a slab or wire has neither a volume nor a number of molecules")
    if not temperature > 0:
        raise ValueError(f"the absorption needs a temperature above 0 K, got {temperature}")
    rates = np.diff(dipole, axis=0) / trajectory.interval
    power = _power(rates, trajectory, differences=True)
    # The spectrum of `_power` is one-sided: twice the Fourier transform of the correlation.
    cross_section = (
        np.pi * COULOMB_CONSTANT / (3 * SPEED_OF_LIGHT * BOLTZMANN_CONSTANT * temperature) * power
    )
    if pbc.all():
        absorption = cross_section / trajectory.volume * 1e8  # 1/Å in 1/cm
    else:
        absorption = cross_section * KM_PER_MOL_PER_SQUARE_ANGSTROM_PER_CM
    return Spectrum(_wavenumbers(trajectory), *mean_of_blocks(absorption))


def _segment(trajectory: Trajectory) -> int:
    """Frames of a segment: a third of the run, so that there are five, half overlapping."""
    return min(trajectory.n_frames // 3, round(LONGEST_SEGMENT / trajectory.interval))


def _wavenumbers(trajectory: Trajectory) -> Float[np.ndarray, " n"]:
    """cm⁻¹ of the entries of a spectrum."""
    frequencies = np.fft.rfftfreq(_segment(trajectory), trajectory.interval)
    return frequencies * WAVENUMBER_PER_INVERSE_FS


def _power(
    series: Float[np.ndarray, "n_frames ..."], trajectory: Trajectory, differences: bool
) -> Float[np.ndarray, "n_segments n"]:
    """One-sided spectral density, summed over all but the first axis, (n_segments, n_wavenumbers).

    By the theorem of Wiener and Khinchin that is the Fourier transform of the autocorrelation.
    `differences`: the series are those of successive frames, which flattens fast motion.
    """
    from scipy.signal import spectrogram

    segment = _segment(trajectory)
    frequencies, _, power = spectrogram(
        series.reshape(len(series), -1),
        1 / trajectory.interval,
        "hann",
        segment,
        segment // 2,
        detrend=False,
        axis=0,
    )
    power = power.sum(axis=1)
    if differences:
        power = power / np.sinc(frequencies * trajectory.interval)[:, None] ** 2
    return power.T


def _refuse_coarse(trajectory: Trajectory) -> None:
    """Say why there is no spectrum."""
    if trajectory.n_frames < 60:
        raise ValueError(f"{trajectory.n_frames} frames are too few: at least 60 are needed")
    fastest = FASTEST_WITH_HYDROGEN if "H" in trajectory.elements else FASTEST
    needed = WAVENUMBER_PER_INVERSE_FS / (2 * fastest)
    if trajectory.interval > needed:
        raise ValueError(
            f"frames are {trajectory.interval:g} fs apart; vibrations up to {fastest:g} cm⁻¹ need "
            f"one every {needed:.1f} fs (--trajectory-interval)"
        )
