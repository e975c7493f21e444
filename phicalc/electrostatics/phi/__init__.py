"""The Φ-Module: Poisson's equation on the graph of atoms, its solvers and its eigenpairs."""

from phicalc.electrostatics.phi.head import PhiHead
from phicalc.electrostatics.phi.module import PhiMode, PhiModule, PhiOutput

__all__ = ["PhiHead", "PhiMode", "PhiModule", "PhiOutput"]
