"""From one number, the accuracy of forces, to the parameters of a dispersion sum.

For waves and meshes the estimates of electrostatic sums serve: the transform is at most
``√π/2 a⁵`` times that of ``1/r``.
"""

import math
from functools import lru_cache
from typing import NamedTuple

from phicalc.electrostatics.sums import accuracy
from phicalc.electrostatics.sums.accuracy import Ions
from phicalc.electrostatics.sums.choice import POINT_COST, SPREAD_COST
from phicalc.electrostatics.sums.splines import smooth_size
from phicalc.terms.dispersion.formulas import START, damping_parameter
from phicalc.units import COULOMB_CONSTANT

#: Part of the accuracy that each part of a sum may use up: coefficients are larger in some anions
#: than in free atoms.
_MARGIN = 0.4
#: Atoms in a cubic Ångström for which errors are estimated: as many as in dense matter.
_DENSITY = 0.1


class Parameters(NamedTuple):
    """Parameters of the sums of all structures that are not summed directly."""

    a: float
    """Of the damping, in 1/Å."""
    largest_k: float
    """In 1/Å."""
    coefficient: float
    """Dispersion coefficient in eV Å⁶ for which errors were estimated."""
    error: float
    """Error in eV/Å aimed at in each part of the sum."""


@lru_cache(maxsize=32)
def choose(cutoff: float, coefficient: float, force_accuracy: float) -> Parameters:
    """Return parameters for a cutoff in Å, a typical C6 in eV Å⁶, and errors in eV/Å."""
    a, error = damping_parameter(cutoff), _MARGIN * force_accuracy
    full = accuracy.wave_cutoff(_ions(1, a, coefficient), a, error)
    return Parameters(a, full / START, coefficient, error)


def choose_mesh(
    parameters: Parameters, edges: tuple[float, float, float], n_atoms: int
) -> tuple[int, int, int, int]:
    """Return points along edges of a box in Å and the order of splines of the cheapest mesh."""
    a, error, candidates = parameters.a, parameters.error, []
    ions = _ions(n_atoms, a, parameters.coefficient)
    for order in accuracy.ORDERS:
        spacing = accuracy.mesh_spacing(ions, a, error, order)
        n, m, k = (smooth_size(max(edge / spacing, order + 1.0)) for edge in edges)
        cost = POINT_COST * n * m * k + SPREAD_COST * n_atoms * order**3
        candidates.append((cost, (n, m, k, order)))
    return min(candidates)[1]


def _ions(n_atoms: int, a: float, coefficient: float) -> Ions:
    """Charges whose electrostatic sum errs as much as this dispersion sum."""
    charge = math.sqrt(0.5 * math.sqrt(math.pi) * a**5 * coefficient / COULOMB_CONSTANT)
    return Ions(n_atoms, n_atoms / _DENSITY, charge, 0.0, 0.0)
