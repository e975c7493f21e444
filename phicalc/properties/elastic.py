"""Elastic constants of a crystal, by stress against strain (matscipy)."""

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.optimize import BFGS
from ase.spacegroup.symmetrize import check_symmetry
from jaxtyping import Float, Int

from phicalc.hints import install_hint
from phicalc.properties.start import need_crystal, prepare, warn_unrelaxed
from phicalc.structures import Structure
from phicalc.units import GPA_PER_EV_PER_CUBIC_ANGSTROM


class ElasticResult(NamedTuple):
    """Elastic constants and what follows from them, in GPa."""

    stiffness: Float[np.ndarray, "6 6"]
    """Voigt order xx, yy, zz, yz, xz, xy; engineering shear strains, (6, 6)."""
    error: Float[np.ndarray, "6 6"]
    """Standard error of the fits, (6, 6)."""
    asymmetry: float
    """Largest change that averaging over the crystal's symmetry made."""
    space_group: str
    """International symbol and number."""
    bulk_modulus: float
    """Mean of the bounds of Voigt and Reuss (Hill)."""
    shear_modulus: float
    """Hill's mean."""
    bulk_bounds: tuple[float, float]
    """Reuss and Voigt."""
    shear_bounds: tuple[float, float]
    """Reuss and Voigt."""
    young_modulus: float
    """Of the polycrystal."""
    poisson_ratio: float
    """Of the polycrystal."""
    stable: bool
    """Whether every small strain costs energy (all eigenvalues positive)."""


def elastic_constants(
    structure: Structure,
    calculator: Calculator | None = None,
    *,
    strain: float = 0.005,
    n_steps: int = 5,
    relax: bool = True,
    fmax: float = 0.001,
    symmetric: bool = True,
) -> ElasticResult:
    """Fit the elastic constants to the stress under small strains.

    All 21 constants are fitted, and the tensor is then averaged over the rotations of the crystal's
    space group, in whatever way the crystal is turned.

    Parameters
    ----------
    structure
        Crystal with relaxed cell and positions; left alone.
    calculator
        Any ASE calculator with stress; that of the atoms by default.
    strain
        Largest strain, up and down.
    n_steps
        Strains along each of the six directions.
    relax
        Relax the positions in each strained cell; without it the constants are of clamped atoms.
    fmax
        With `relax`: largest force at the end, eV/Å.
    symmetric
        Average over the symmetry.

    Raises
    ------
    ImportError
        Without matscipy and spglib (the extra ``materials``).
    ValueError
        If the structure is no crystal or a number makes no sense.

    References
    ----------
    Hill, Proc. Phys. Soc. A 65, 349 (1952), doi:10.1088/0370-1298/65/5/307.
    """
    elasticity = _elasticity()
    atoms = prepare(structure, calculator, "elastic constants")
    need_crystal(atoms, "elastic constants")
    if not 0 < strain < 0.2 or n_steps < 3:
        raise ValueError(
            f"strain must lie between 0 and 0.2 and n_steps be 3 or more, got {strain}, {n_steps}"
        )
    warn_unrelaxed(atoms, "elastic constants")
    strained = elasticity.generate_strained_configs(
        atoms, symmetry="triclinic", N_steps=n_steps, delta=2 * strain / (n_steps - 1)
    )
    frames = []
    for frame in strained:
        frame.calc = atoms.calc
        frames.append(frame)
    stiffness, error = elasticity.fit_elastic_constants(
        frames,
        symmetry="triclinic",
        N_steps=n_steps,
        optimizer=BFGS if relax else None,
        verbose=False,
        graphics=False,
        **({"fmax": fmax, "steps": 500} if relax else {}),
    )
    found = check_symmetry(atoms, symprec=1e-3)
    averaged = _averaged(stiffness, atoms, found.rotations, elasticity) if symmetric else stiffness
    name = f"{found.international} ({found.number})"
    change = float(np.abs(averaged - stiffness).max() * GPA_PER_EV_PER_CUBIC_ANGSTROM)
    unit = GPA_PER_EV_PER_CUBIC_ANGSTROM
    return _moduli(averaged * unit, error * unit, change, name)


def _elasticity():  # type: ignore[no-untyped-def]  # a library without types
    """Import matscipy and spglib (which ASE calls), or say how to get them."""
    try:
        import spglib  # noqa: F401
        from matscipy import elasticity
    except ImportError as error:
        raise ImportError(
            f"elastic constants need matscipy and spglib ({error}): {install_hint('materials')}"
        ) from error
    return elasticity


def _averaged(  # type: ignore[no-untyped-def]
    stiffness: Float[np.ndarray, "6 6"],
    atoms: Atoms,
    rotations: Int[np.ndarray, "n 3 3"],
    elasticity,
) -> Float[np.ndarray, "6 6"]:
    """Average the tensor over rotations given for fractional coordinates."""
    columns = atoms.cell.array.T
    turned = [
        elasticity.rotate_elastic_constants(
            stiffness, columns @ rotation @ np.linalg.inv(columns), tol=1e-3
        )
        for rotation in np.unique(rotations, axis=0)
    ]
    return np.mean(turned, axis=0)


def _moduli(
    stiffness: Float[np.ndarray, "6 6"],
    error: Float[np.ndarray, "6 6"],
    asymmetry: float,
    space_group: str,
) -> ElasticResult:
    """Moduli of the polycrystal: bounds of Voigt (equal strain) and Reuss (equal stress)."""
    compliance = np.linalg.inv(stiffness)
    upper, lower = np.trace(stiffness[:3, :3]), np.trace(compliance[:3, :3])
    off, off_compliance = (m[0, 1] + m[0, 2] + m[1, 2] for m in (stiffness, compliance))
    bulk = (1 / (lower + 2 * off_compliance), (upper + 2 * off) / 9)
    shears, compliant = np.trace(stiffness[3:, 3:]), np.trace(compliance[3:, 3:])
    shear = (
        15 / (4 * (lower - off_compliance) + 3 * compliant),
        (upper - off + 3 * shears) / 15,
    )
    k, g = float(np.mean(bulk)), float(np.mean(shear))
    return ElasticResult(
        stiffness=stiffness,
        error=error,
        asymmetry=asymmetry,
        space_group=space_group,
        bulk_modulus=k,
        shear_modulus=g,
        bulk_bounds=(float(bulk[0]), float(bulk[1])),
        shear_bounds=(float(shear[0]), float(shear[1])),
        young_modulus=9 * k * g / (3 * k + g),
        poisson_ratio=(3 * k - 2 * g) / (2 * (3 * k + g)),
        stable=bool(np.linalg.eigvalsh((stiffness + stiffness.T) / 2).min() > 0),
    )
