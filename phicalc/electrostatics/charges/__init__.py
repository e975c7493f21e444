"""Atomic charges: equilibrated or read from the features, their widths and their history."""

from phicalc.electrostatics.charges.history import ChargeHistory
from phicalc.electrostatics.charges.latent import LatentCharges
from phicalc.electrostatics.charges.qeq import ChargeEquilibration, Electrostatics, equilibrate
from phicalc.electrostatics.charges.widths import GaussianWidths

__all__ = [
    "ChargeEquilibration",
    "ChargeHistory",
    "Electrostatics",
    "GaussianWidths",
    "LatentCharges",
    "equilibrate",
]
