"""Normal modes of a molecule: frequencies, infrared intensities, zero-point energy."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.vibrations import Infrared, Vibrations

from phicalc.pictures import BLUE, GREY, RED, formula_of, new_figure
from phicalc.properties.start import prepare, warn_unrelaxed
from phicalc.structures import Structure
from phicalc.units import KM_PER_MOL_PER_SQUARE_CHARGE_PER_AMU

#: cm⁻¹: width of the lines in the picture.
LINE_WIDTH = 15.0


class VibrationResult(NamedTuple):
    """Harmonic vibrations, without the motions of the whole molecule."""

    frequencies: np.ndarray
    """cm⁻¹, ascending; imaginary ones negative, (n_modes,)."""
    intensities: np.ndarray | None
    """Infrared, km/mol, (n_modes,); None without a dipole."""
    modes: np.ndarray
    """Displacements of normalised modes, (n_modes, n_atoms, 3)."""
    rigid: np.ndarray
    """cm⁻¹ of the translations and rotations left out, which should be small."""
    zero_point_energy: float
    """eV, of the real frequencies."""
    n_imaginary: int
    """Directions in which the energy falls: 0 at a minimum, 1 at a transition state."""


def vibrations(
    structure: Structure,
    calculator: Calculator | None = None,
    *,
    delta: float = 0.005,
    picture: str | Path | None = None,
) -> VibrationResult:
    """Compute harmonic vibrations by central differences of forces and dipoles (ASE).

    Parameters
    ----------
    structure
        Relaxed molecule; left alone. In periodic structures three translations are left out, and
        there are no infrared intensities.
    calculator
        Any ASE calculator; that of the atoms by default. Use ``dtype="float64"`` with ours: the
        noise of single precision shows in soft modes.
    delta
        Displacement in Å.
    picture
        File for a picture of the infrared spectrum; needs intensities.

    Raises
    ------
    ValueError
        Without a calculator or atoms, or for a picture without intensities.
    """
    atoms = prepare(structure, calculator, "vibrations")
    if not delta > 0:
        raise ValueError(f"delta must be positive (Å), got {delta}")
    warn_unrelaxed(atoms, "vibrations")
    has_dipole = "dipole" in atoms.calc.implemented_properties and not atoms.pbc.any()
    if picture is not None and not has_dipole:
        raise ValueError(
            "a picture of the infrared spectrum needs a molecule without periodic directions and a "
            "calculator with dipoles"
        )
    kind = Infrared if has_dipole else Vibrations
    with TemporaryDirectory() as folder:
        finite: Any = kind(atoms, name=f"{folder}/displaced", delta=delta, nfree=2)
        finite.run()
        energies, modes = finite.get_vibrations().get_energies_and_modes()
        absorbed = finite.intensities if isinstance(finite, Infrared) else None
    frequencies = np.real(energies) - np.abs(np.imag(energies))  # eV; one part of each is zero
    order = np.argsort(np.abs(frequencies), kind="stable")
    n_rigid = min(_rigid_motions(atoms), len(order))
    kept = order[n_rigid:][np.argsort(frequencies[order[n_rigid:]])]
    intensities = None
    if absorbed is not None:  # ASE has (D/Å)²/amu
        intensities = absorbed[kept] * units.Debye**2 * KM_PER_MOL_PER_SQUARE_CHARGE_PER_AMU
    result = VibrationResult(
        frequencies=frequencies[kept] / units.invcm,
        intensities=intensities,
        modes=modes[kept],
        rigid=frequencies[order[:n_rigid]] / units.invcm,
        zero_point_energy=float(frequencies[kept].clip(0).sum() / 2),
        n_imaginary=int((frequencies[kept] < 0).sum()),
    )
    if picture is not None:
        _draw(result, formula_of(atoms), Path(picture))
    return result


def _rigid_motions(atoms: Atoms) -> int:
    """Count translations and rotations of the whole that cost no energy."""
    if atoms.constraints:
        return 0
    if atoms.pbc.any():
        return 3
    arms = atoms.positions - atoms.get_center_of_mass()
    size = max(float(np.abs(arms).max()), 1e-12)
    return 3 + {0: 0, 1: 2, 2: 3, 3: 3}[int(np.linalg.matrix_rank(arms, tol=1e-3 * size))]


def _draw(result: VibrationResult, name: str, path: Path) -> None:
    assert result.intensities is not None  # the caller has refused
    figure, (axes,) = new_figure(1, 1, width=7.0, height=4.0)
    top = 1.1 * max(float(result.frequencies.max()), 500.0)
    wavenumbers = np.linspace(0, top, 4000)
    offsets = (wavenumbers[:, None] - result.frequencies) / (LINE_WIDTH / 2)
    curve = (result.intensities / (np.pi * LINE_WIDTH / 2) / (1 + offsets**2)).sum(axis=1)
    axes.fill_between(wavenumbers, curve, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(wavenumbers, curve, color=BLUE, linewidth=1.4)
    axes.vlines(result.frequencies, 0, -0.03 * curve.max(), color=RED, linewidth=1.2)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlim(0, top)
    axes.set_xlabel("wavenumber (cm⁻¹)")
    axes.set_ylabel("absorption (km/mol per cm⁻¹)")
    axes.set_title(
        f"{name}: harmonic infrared spectrum, lines {LINE_WIDTH:g} cm⁻¹ wide; zero-point energy "
        f"{result.zero_point_energy:.3f} eV",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
