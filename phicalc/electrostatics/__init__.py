"""Electrostatics of Gaussian charges: heads, charges, Coulomb sums and the Φ-Module.

`head` says what an electrostatic head is; `charges` finds charges by equilibration or reads them
from the features; `phi` is the Φ-Module, Poisson's equation on the graph of atoms; `sums` adds up
Coulomb interactions in every boundary condition. The graph `laplacian`, the `constraints` of the
total charge and the Gaussian `widths` serve all of them. Widths σ_i are standard deviations in Å,
energies are in eV, and boundary conditions are tin-foil in three dimensions.
"""

from phicalc.electrostatics.charges import (
    ChargeEquilibration,
    ChargeHistory,
    LatentCharges,
    equilibrate,
)
from phicalc.electrostatics.head import Electrostatics, Head, HeadKind, Surroundings
from phicalc.electrostatics.phi import PhiHead, PhiMode, PhiModule, PhiOutput
from phicalc.electrostatics.sums import (
    CoulombPlanner,
    CoulombSettings,
    CoulombSum,
    SumReport,
    plan_coulomb,
    report,
)
from phicalc.electrostatics.widths import GaussianWidths

__all__ = [
    "ChargeEquilibration",
    "ChargeHistory",
    "CoulombPlanner",
    "CoulombSettings",
    "CoulombSum",
    "Electrostatics",
    "GaussianWidths",
    "Head",
    "HeadKind",
    "LatentCharges",
    "PhiHead",
    "PhiMode",
    "PhiModule",
    "PhiOutput",
    "SumReport",
    "Surroundings",
    "equilibrate",
    "plan_coulomb",
    "report",
]
