"""Normal modes of a molecule: frequencies, infrared intensities, zero-point energy."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from jaxtyping import Float64
from numpy import ndarray

from phicalc.pictures import BLUE, GREY, RED, new_figure
from phicalc.properties.rigid import allowed_motions, free_rigid_motions, rigid_motions
from phicalc.properties.start import prepare, warn_unrelaxed
from phicalc.structures import Structure, formula_of
from phicalc.units import EV_PER_WAVENUMBER, KM_PER_MOL_PER_SQUARE_CHARGE_PER_AMU, PLANCK

#: cm⁻¹: width of the lines in the picture.
LINE_WIDTH = 15.0


class VibrationResult(NamedTuple):
    """Harmonic vibrations, without the motions of the whole structure."""

    frequencies: Float64[ndarray, " n_modes"]
    """cm⁻¹, ascending; imaginary ones negative."""
    intensities: Float64[ndarray, " n_modes"] | None
    """Infrared, km/mol; None without a dipole."""
    modes: Float64[ndarray, "n_modes n_atoms 3"]
    """Displacements in 1/√amu, per Å √amu of the normal coordinate."""
    rigid: Float64[ndarray, " n_rigid"]
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
    """Compute harmonic vibrations by central differences of forces and dipoles.

    Translations and rotations of the whole structure are projected out before the frequencies are
    computed, as far as periodicity, constraints and an external field leave them free: three of
    each in a molecule, two rotations if it is linear, none in a crystal; about the fixed atom if
    there is one. What constraints fix does not move.

    Parameters
    ----------
    structure
        Relaxed molecule or crystal; left alone. Periodic structures have no infrared intensities.
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
        Without a calculator or atoms, for a picture without intensities, or constraints that are
        not linear in the displacements.

    References
    ----------
    Wilson, Decius and Cross, *Molecular Vibrations*, McGraw-Hill 1955.
    """
    atoms = prepare(structure, calculator, "vibrations")
    if not delta > 0:
        raise ValueError(f"delta must be positive (Å), got {delta}")
    has_dipole = "dipole" in atoms.calc.implemented_properties and not atoms.pbc.any()
    if picture is not None and not has_dipole:
        raise ValueError(
            "a picture of the infrared spectrum needs a molecule without periodic directions and a "
            "calculator with dipoles"
        )
    allowed = allowed_motions(atoms)
    warn_unrelaxed(atoms, "vibrations")
    hessian, dipoles = _derivatives(atoms, delta, has_dipole)
    rigid = free_rigid_motions(rigid_motions(atoms, hessian, _external_field(atoms)), allowed)
    result = _harmonic(hessian, dipoles, atoms.get_masses(), allowed, rigid)
    if picture is not None:
        _draw(result, formula_of(atoms), Path(picture))
    return result


def _external_field(atoms: Atoms) -> Float64[ndarray, "3"]:
    """Return the uniform field in V/Å in which our calculators compute the atoms."""
    parameters = getattr(atoms.calc, "parameters", None) or {}
    field = atoms.info.get("external_field", parameters.get("external_field"))
    return np.zeros(3) if field is None else np.asarray(field, dtype=float)


def _derivatives(
    atoms: Atoms, delta: float, has_dipole: bool
) -> tuple[
    Float64[ndarray, "n_coordinates n_coordinates"], Float64[ndarray, "n_coordinates 3"] | None
]:
    """Second derivatives of the energy in eV/Å², and those of the dipole in e."""
    moved = atoms.copy()
    moved.set_constraint()
    moved.calc = atoms.calc
    start, step = atoms.positions.copy(), delta * np.eye(3 * len(atoms))
    forces, dipoles = [], []
    for change in np.concatenate([step, -step]):
        moved.positions = start + change.reshape(-1, 3)
        forces.append(moved.get_forces().ravel())
        if has_dipole:
            dipoles.append(moved.get_dipole_moment())
    up, down = np.split(np.array(forces), 2)
    hessian = (down - up) / (2 * delta)
    if not has_dipole:
        return (hessian + hessian.T) / 2, None
    up, down = np.split(np.array(dipoles), 2)
    return (hessian + hessian.T) / 2, (up - down) / (2 * delta)


def _harmonic(
    hessian: Float64[ndarray, "n_coordinates n_coordinates"],
    dipoles: Float64[ndarray, "n_coordinates 3"] | None,
    masses: Float64[ndarray, " n_atoms"],
    allowed: Float64[ndarray, "n_coordinates n_free"],
    rigid: Float64[ndarray, "n_coordinates n_rigid"],
) -> VibrationResult:
    """Diagonalize the mass-weighted Hessian among motions that are allowed and not rigid."""
    weights = np.sqrt(np.repeat(masses, 3))[:, None]
    whole, _ = np.linalg.qr(weights * rigid)
    space, _, _ = np.linalg.svd(weights * allowed - whole @ (whole.T @ (weights * allowed)))
    space = space[:, : allowed.shape[1] - rigid.shape[1]]
    weighted = hessian / weights / weights.T
    squares, mixtures = np.linalg.eigh(space.T @ weighted @ space)
    modes = (space @ mixtures) / weights  # Å per √amu Å of the normal coordinate
    energies = PLANCK * np.sign(squares) * np.sqrt(np.abs(squares))
    of_rigid = np.linalg.eigvalsh(whole.T @ weighted @ whole)
    intensities = None
    if dipoles is not None:
        intensities = ((modes.T @ dipoles) ** 2).sum(axis=1) * KM_PER_MOL_PER_SQUARE_CHARGE_PER_AMU
    return VibrationResult(
        frequencies=energies / EV_PER_WAVENUMBER,
        intensities=intensities,
        modes=modes.T.reshape(len(squares), len(masses), 3),
        rigid=PLANCK * np.sign(of_rigid) * np.sqrt(np.abs(of_rigid)) / EV_PER_WAVENUMBER,
        zero_point_energy=float(energies.clip(0).sum() / 2),
        n_imaginary=int((energies < 0).sum()),
    )


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
