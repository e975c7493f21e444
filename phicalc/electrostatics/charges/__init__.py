"""Atomic charges: equilibrated or read from the features, and extrapolated from their history."""

from phicalc.electrostatics.charges.history import ChargeHistory
from phicalc.electrostatics.charges.latent import LatentCharges
from phicalc.electrostatics.charges.qeq import ChargeEquilibration, equilibrate

__all__ = ["ChargeEquilibration", "ChargeHistory", "LatentCharges", "equilibrate"]
