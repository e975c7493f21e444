"""From one number, the accuracy of forces, to the parameters of a dispersion sum.

Pairs beyond the cutoff r are left out, each with the force ``C exp(−x²) [6(1 + x² + x⁴/2)/r⁷ +
a⁶/r]``, x = ar. Where neighbors are everywhere their forces cancel but for chance; at a surface
they add up. For waves and meshes the estimates of electrostatic sums serve: the transform is at
most ``√π/2 a⁵`` times that of ``1/r``.
"""

import math
from functools import lru_cache
from typing import NamedTuple

from phicalc.electrostatics.sums import accuracy
from phicalc.electrostatics.sums.accuracy import Ions
from phicalc.electrostatics.sums.choice import POINT_COST, SPREAD_COST
from phicalc.electrostatics.sums.splines import smooth_size
from phicalc.terms.dispersion.formulas import START
from phicalc.units import COULOMB_CONSTANT

#: Part of the accuracy that each part of a sum may use up: coefficients are larger in some anions
#: than in free atoms.
_MARGIN = 0.4
#: Atoms in a cubic Ångström for which errors are estimated: as many as in dense matter.
_DENSITY = 0.1


class Parameters(NamedTuple):
    """Parameters of the sums of all structures that are not summed directly."""

    splitting: float
    """Parameter a of the split in 1/Å."""
    largest_k: float
    """In 1/Å."""
    coefficient: float
    """Dispersion coefficient in eV Å⁶ for which errors were estimated."""
    error: float
    """Error in eV/Å aimed at in each part of the sum."""


@lru_cache(maxsize=32)
def choose(cutoff: float, coefficient: float, force_accuracy: float) -> Parameters:
    """Return parameters for a real-space cutoff in Å, a typical C6 in eV Å⁶, and errors in eV/Å."""
    error = _MARGIN * force_accuracy
    reach = 0.5 * (START + 1) * cutoff  # pairs fade out around it
    low, high = 0.1 / cutoff, 20 / cutoff
    for _ in range(40):
        middle = 0.5 * (low + high)
        enough = pair_error(middle, reach, coefficient) <= error
        low, high = (low, middle) if enough else (middle, high)
    full = accuracy.wave_cutoff(_ions(1, high, coefficient), high, error)
    return Parameters(high, full / START, coefficient, error)


def pair_error(splitting: float, cutoff: float, coefficient: float) -> float:
    """Force error in eV/Å of leaving out pairs beyond a cutoff in Å."""
    square = (splitting * cutoff) ** 2
    inverse = 6 * (1 + square + 0.5 * square**2) / cutoff**7 + splitting**6 / cutoff
    force = coefficient * math.exp(-square) * inverse
    by_chance = cutoff * math.sqrt(math.pi * _DENSITY / cutoff) / splitting
    at_surface = math.pi * _DENSITY * cutoff / (2 * splitting**2)
    return force * math.hypot(by_chance, at_surface)


def choose_mesh(
    parameters: Parameters, edges: tuple[float, float, float], n_atoms: int
) -> tuple[int, int, int, int]:
    """Return points along edges of a box in Å and the order of splines of the cheapest mesh."""
    splitting, error, candidates = parameters.splitting, parameters.error, []
    ions = _ions(n_atoms, splitting, parameters.coefficient)
    for order in accuracy.ORDERS:
        spacing = accuracy.mesh_spacing(ions, splitting, error, order)
        a, b, c = (smooth_size(max(edge / spacing, order + 1.0)) for edge in edges)
        cost = POINT_COST * a * b * c + SPREAD_COST * n_atoms * order**3
        candidates.append((cost, (a, b, c, order)))
    return min(candidates)[1]


def _ions(n_atoms: int, splitting: float, coefficient: float) -> Ions:
    """Charges whose electrostatic sum errs as much as this dispersion sum."""
    charge = math.sqrt(0.5 * math.sqrt(math.pi) * splitting**5 * coefficient / COULOMB_CONSTANT)
    return Ions(n_atoms, n_atoms / _DENSITY, charge, 0.0, 0.0)
