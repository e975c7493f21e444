"""Sums of Coulomb interactions between Gaussian charges, in any boundary condition.

`kernels`, `bessel` and `boundary` hold the formulas and no sums; `settings`, `accuracy` and
`choice` turn one number, the accuracy of the forces, into parameters; `plan` lists the terms of a
sum; `coulomb`, `waves` and `mesh` (with its `influence` function and `splines`) add them up;
`error_report` estimates the error of a finished sum.
"""

from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.sums.error_report import SumReport, report
from phicalc.electrostatics.sums.plan import CoulombPlanner, plan_coulomb
from phicalc.electrostatics.sums.settings import CoulombSettings

__all__ = ["CoulombPlanner", "CoulombSettings", "CoulombSum", "SumReport", "plan_coulomb", "report"]
