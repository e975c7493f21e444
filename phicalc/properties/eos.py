"""Energy against volume: equilibrium volume and bulk modulus of a crystal."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import units
from ase.calculators.calculator import Calculator
from ase.eos import EquationOfState

from phicalc.pictures import BLUE, RED, new_figure
from phicalc.properties.start import need_crystal, prepare, relax_positions
from phicalc.structures import Structure, formula_of


class EquationOfStateResult(NamedTuple):
    """Fit of the equation of state of Birch and Murnaghan."""

    volumes: np.ndarray
    """Å³ of the cell, (n_points,)."""
    energies: np.ndarray
    """eV, (n_points,)."""
    volume: float
    """Equilibrium volume in Å³."""
    energy: float
    """Energy at the equilibrium volume in eV."""
    bulk_modulus: float
    """GPa."""
    scale: float
    """Factor by which lengths of the given cell must grow to reach equilibrium."""
    residual: float
    """Root mean square deviation of the fit in meV/atom."""


def equation_of_state(
    structure: Structure,
    calculator: Calculator | None = None,
    *,
    strain: float = 0.06,
    n_points: int = 9,
    relax: bool = False,
    fmax: float = 0.01,
    picture: str | Path | None = None,
) -> EquationOfStateResult:
    """Compute energies over a range of volumes and fit the equation of state.

    Cell and positions are scaled alike in all directions.

    Parameters
    ----------
    structure
        Crystal; left alone.
    calculator
        Any ASE calculator; that of the atoms by default.
    strain
        Largest relative change of the volume, up and down.
    n_points
        Number of volumes.
    relax
        Relax the positions at each volume, where symmetry does not fix them.
    fmax
        With `relax`: largest force at the end, eV/Å.
    picture
        File for a picture.

    Raises
    ------
    ValueError
        If the structure is no crystal, or the range of volumes does not hold the minimum.

    References
    ----------
    Birch, Phys. Rev. 71, 809 (1947), doi:10.1103/PhysRev.71.809.
    """
    atoms = prepare(structure, calculator, "an equation of state")
    need_crystal(atoms, "an equation of state")
    if not 0 < strain < 0.9 or n_points < 5:
        raise ValueError(
            f"strain must lie between 0 and 0.9 and n_points be 5 or more, got {strain}, {n_points}"
        )
    volumes = atoms.get_volume() * np.linspace(1 - strain, 1 + strain, n_points)
    cell, energies = atoms.cell.copy(), []
    for volume in volumes:
        atoms.set_cell(cell * (volume / abs(cell.volume)) ** (1 / 3), scale_atoms=True)
        if relax:
            relax_positions(atoms, fmax, "an equation of state")
        energies.append(float(atoms.get_potential_energy()))
    lowest = int(np.argmin(energies))
    if lowest in (0, n_points - 1):
        raise ValueError(
            f"the energy is lowest at {'the smallest' if lowest == 0 else 'the largest'} volume, "
            f"{volumes[lowest]:.2f} Å³ of {volumes[0]:.2f} … {volumes[-1]:.2f} Å³: relax the cell "
            "first (phicalc relax --cell), or widen the strain"
        )
    fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
    volume, energy, modulus = fit.fit(warn=False)
    deviations = fit.func(volumes, *fit.eos_parameters) - np.array(energies)
    result = EquationOfStateResult(
        volumes=volumes,
        energies=np.array(energies),
        volume=float(volume),
        energy=float(energy),
        bulk_modulus=float(modulus / units.GPa),
        scale=float((volume / abs(cell.volume)) ** (1 / 3)),
        residual=float(np.sqrt(np.mean(deviations**2)) / len(atoms) * 1000),
    )
    if picture is not None:
        _draw(result, fit, formula_of(atoms), len(atoms), Path(picture))
    return result


def _draw(
    result: EquationOfStateResult, fit: EquationOfState, name: str, n_atoms: int, path: Path
) -> None:
    figure, (axes,) = new_figure(1, 1, width=6.2, height=4.2)
    fine = np.linspace(result.volumes[0], result.volumes[-1], 200)
    curve = (fit.func(fine, *fit.eos_parameters) - result.energy) / n_atoms * 1000
    points = (result.energies - result.energy) / n_atoms * 1000
    axes.plot(fine / n_atoms, curve, color=BLUE, linewidth=1.6, label="Birch–Murnaghan")
    axes.plot(result.volumes / n_atoms, points, "o", color=BLUE, markersize=5)
    axes.axvline(result.volume / n_atoms, color=RED, linestyle="--", linewidth=1.2)
    axes.set_xlabel("volume (Å³/atom)")
    axes.set_ylabel("energy above the minimum (meV/atom)")
    axes.set_title(
        f"{name}: V₀ = {result.volume / n_atoms:.3f} Å³/atom, B = {result.bulk_modulus:.1f} GPa",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
