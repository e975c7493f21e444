"""Electrostatics of Gaussian charges: kernels, sums, and charge equilibration.

`kernels` holds the formulae and no sums, `plan` decides which terms a sum contains, `sums` adds
them up, `qeq` finds the charges. Conventions and equations: Gaussian charges of width σ_i
(standard deviation, Å), energies in eV, tin-foil boundary in three dimensions.
"""

from phicalc.electrostatics.plan import plan_coulomb
from phicalc.electrostatics.qeq import ChargeEquilibration, Electrostatics, equilibrate
from phicalc.electrostatics.sums import CoulombSum

__all__ = [
    "ChargeEquilibration",
    "CoulombSum",
    "Electrostatics",
    "equilibrate",
    "plan_coulomb",
]
