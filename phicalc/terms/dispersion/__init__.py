"""Dispersion: attraction that falls as 1/r⁶, summed over all atoms and images.

`free_atoms` has the coefficients of free atoms, `formulas` damps 1/r⁶ so that it is smooth, `waves`
and `plan` say over which pairs or k vectors it is summed in each boundary condition, `lattice_sum`
adds them up, and `learned` reads the coefficients from features.
"""

from phicalc.terms.dispersion.lattice_sum import DispersionSum
from phicalc.terms.dispersion.learned import LearnedDispersion
from phicalc.terms.dispersion.plan import plan_dispersion

__all__ = ["DispersionSum", "LearnedDispersion", "plan_dispersion"]
