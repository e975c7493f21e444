"""What a trajectory says: structure, diffusion, dipoles, spectra, with statistical errors."""

from phicalc.analysis.blocks import Estimate, block_average, jackknife
from phicalc.analysis.diffusion import Diffusion, diffusion
from phicalc.analysis.dipole import dielectric_constant, itinerant_dipole
from phicalc.analysis.rdf import (
    PairDistribution,
    informative_pair,
    informative_pairs,
    pair_distribution,
    pair_distributions,
)
from phicalc.analysis.spectra import Spectrum, infrared_spectrum, vibrational_density
from phicalc.analysis.trajectory import Trajectory, read_trajectory
from phicalc.structures.molecules import Molecules, find_molecules

__all__ = [
    "Diffusion",
    "Estimate",
    "Molecules",
    "PairDistribution",
    "Spectrum",
    "Trajectory",
    "block_average",
    "dielectric_constant",
    "diffusion",
    "find_molecules",
    "informative_pair",
    "informative_pairs",
    "infrared_spectrum",
    "itinerant_dipole",
    "jackknife",
    "pair_distribution",
    "pair_distributions",
    "read_trajectory",
    "vibrational_density",
]
