"""Energy against volume: equilibrium volume and bulk modulus of a crystal."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.eos import EquationOfState
from jaxtyping import Float64
from numpy import ndarray

from phicalc.pictures import BLUE, RED, new_figure
from phicalc.properties.start import need_crystal, prepare, relax_positions
from phicalc.structures import Structure, formula_of, to_atoms
from phicalc.units import GPA_PER_EV_PER_CUBIC_ANGSTROM

#: Factor by which the equilibrium volume may differ from the volume given.
LARGEST_CHANGE = 2.0


class EquationOfStateResult(NamedTuple):
    """Fit of the equation of state of Birch and Murnaghan."""

    volumes: Float64[ndarray, " n_points"]
    """Å³ of the cell."""
    energies: Float64[ndarray, " n_points"]
    """eV."""
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

    Cell and positions are scaled alike in all directions. The cell need not be relaxed: the range
    of volumes moves downhill until it holds the minimum, and is then centered there.

    Parameters
    ----------
    structure
        Crystal; left alone.
    calculator
        Any ASE calculator; that of the atoms by default.
    strain
        Largest relative change of the volume, up and down from the middle of the range.
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
        If the structure is no crystal, a number makes no sense, or no minimum is found between half
        and twice the volume given.
    RuntimeError
        With `relax`, if positions do not settle.

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
    scan = partial(_energies, atoms, strain=strain, n_points=n_points, fmax=fmax if relax else None)
    volumes, energies, moved = _around_the_minimum(atoms.get_volume(), scan)
    fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
    if moved:  # the range found may hold the minimum near its end
        volumes, energies = scan(float(fit.fit(warn=False)[0]))
        fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
    result = _result(fit, to_atoms(structure).get_volume(), len(atoms))
    if picture is not None:
        _draw(result, fit, formula_of(atoms), len(atoms), Path(picture))
    return result


def _energies(
    atoms: Atoms, center: float, *, strain: float, n_points: int, fmax: float | None
) -> tuple[Float64[ndarray, " n_points"], Float64[ndarray, " n_points"]]:
    """Volumes in Å³ around a center, and energies in eV; `fmax` in eV/Å relaxes the positions."""
    volumes = center * np.linspace(1 - strain, 1 + strain, n_points)
    cell, positions, energies = atoms.cell.copy(), atoms.get_scaled_positions(wrap=False), []
    for volume in volumes:
        atoms.set_cell(cell * (volume / abs(cell.volume)) ** (1 / 3))
        atoms.set_scaled_positions(positions)
        if fmax is not None:
            relax_positions(atoms, fmax, "an equation of state")
            positions = atoms.get_scaled_positions(wrap=False)
        energies.append(float(atoms.get_potential_energy()))
    return volumes, np.array(energies)


def _around_the_minimum(
    start: float,
    scan: Callable[[float], tuple[Float64[ndarray, " n_points"], Float64[ndarray, " n_points"]]],
) -> tuple[Float64[ndarray, " n_points"], Float64[ndarray, " n_points"], bool]:
    """Move the range of volumes (Å³) downhill until it holds the minimum of the energy (eV).

    Returns volumes, energies, and whether the range was moved.
    """
    center, moved = start, False
    while True:
        volumes, energies = scan(center)
        lowest = int(np.argmin(energies))
        if 0 < lowest < len(volumes) - 1:
            return volumes, energies, moved
        center, moved = float(volumes[lowest]), True
        if not 1 / LARGEST_CHANGE < center / start < LARGEST_CHANGE:
            raise ValueError(
                f"the energy still falls at {center:.2f} Å³, {center / start:.2f} times the volume "
                "given: relax the cell first (phicalc relax --cell), and check that the model "
                "covers this crystal"
            )


def _result(fit: EquationOfState, start: float, n_atoms: int) -> EquationOfStateResult:
    """Collect the results of a fit; `start` is the volume given, in Å³."""
    volume, energy, modulus = fit.fit(warn=False)
    volumes, energies = np.array(fit.v), np.array(fit.e)
    deviations = fit.func(volumes, *fit.eos_parameters) - energies
    return EquationOfStateResult(
        volumes=volumes,
        energies=energies,
        volume=float(volume),
        energy=float(energy),
        bulk_modulus=float(modulus * GPA_PER_EV_PER_CUBIC_ANGSTROM),
        scale=float((volume / start) ** (1 / 3)),
        residual=float(np.sqrt(np.mean(deviations**2)) / n_atoms * 1000),
    )


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
