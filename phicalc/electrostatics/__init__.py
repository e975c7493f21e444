"""Electrostatics of Gaussian charges: kernels, sums, and charge equilibration.

`kernels` and `boundary` hold the formulae and no sums; `settings`, `accuracy` and `choice` turn one
number, the accuracy of the forces, into parameters, and `plan` into the terms of a sum; `sums` and
`mesh` (with its `influence` function) add them up; `widths` are those of the Gaussians, fixed or
trained; `qeq` (with `constraints` and `solvers`) and `latent` find the charges, `history` guesses
the next ones; `report` tells how good the sum was. `phi` is the Φ-Module, with `laplacian`, its
`eigenpairs` and `poisson` solvers; `phi_head` adds Coulomb's law to it.
Gaussian charges of width σ_i (standard deviation, Å), energies in eV, tin-foil boundary in three
dimensions.
"""

from phicalc.electrostatics.charges.history import ChargeHistory
from phicalc.electrostatics.charges.latent import LatentCharges
from phicalc.electrostatics.charges.qeq import ChargeEquilibration, Electrostatics, equilibrate
from phicalc.electrostatics.charges.widths import GaussianWidths
from phicalc.electrostatics.phi.head import PhiHead
from phicalc.electrostatics.phi.module import PhiMode, PhiModule, PhiOutput
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.sums.error_report import SumReport, report
from phicalc.electrostatics.sums.plan import CoulombPlanner, plan_coulomb
from phicalc.electrostatics.sums.settings import CoulombSettings

__all__ = [
    "ChargeEquilibration",
    "ChargeHistory",
    "CoulombPlanner",
    "CoulombSettings",
    "CoulombSum",
    "Electrostatics",
    "GaussianWidths",
    "LatentCharges",
    "PhiHead",
    "PhiMode",
    "PhiModule",
    "PhiOutput",
    "SumReport",
    "equilibrate",
    "plan_coulomb",
    "report",
]
