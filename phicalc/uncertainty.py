"""Last-layer uncertainty: how unlike its training data a model finds an atom, as an error bar.

The short-range energy is linear in the last features φ of the atoms, ``E = Σ_i w·φ_i``: the input
of the linear readout and the last hidden layer of the other one. With ``K = Σ φ φᵀ + ridge``
over all atoms of the training set, ``s² = φᵀ K⁻¹ φ`` is the variance of a linear fit of these
features but for a factor, which is calibrated on the errors of validation frames:

- energy of a structure: ``σ = α s(Σ_i φ_i)``, energy of an atom: ``σ_i = α s(φ_i)``;
- force on an atom: ``σ_F,i = β_Z s(φ_i)`` with a factor for each element. No derivative is taken.
  An ensemble of last layers would take one backward pass for each member; on crystals of rock
  salt and on Ag₃ the rank correlation of s(φ_i) with the error of the force is 0.8 and 0.65.

An atom is outside of the training data if s(φ_i) is beyond what 99.9 % of its frames reach. All
of this is one matrix product beside a prediction, which it leaves as it is.

References
----------
Bigi, Chong, Ceriotti, Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn

from phicalc.graph import AtomicGraph, sum_per_structure


class Spread(NamedTuple):
    """Standard deviations for a batch, and how far its atoms are from the training data."""

    energy: Float64[Tensor, " n_structures"]
    """Of the energy of each structure, in eV."""
    energies: Float64[Tensor, " n_atoms"]
    """Of the energy of each atom, in eV."""
    forces: Float64[Tensor, " n_atoms"]
    """Of the force on each atom in eV/Å: √ of the sum over components."""
    distance: Float64[Tensor, " n_atoms"]
    """Distance s of each atom over the largest of its element in the training data, a number."""

    @property
    def outside(self) -> Bool[Tensor, " n_atoms"]:
        """Whether each atom is unlike all training data."""
        return self.distance > 1


class LastLayerUncertainty(nn.Module):
    """Standard deviations of energies and forces from the last features of the atoms.

    Parameters
    ----------
    n_features
        Number of last features, `phicalc.potential.Potential.n_last`.
    n_elements
        Number of elements of the potential.
    """

    whitening: Tensor
    energy_scale: Tensor
    force_scales: Tensor
    bounds: Tensor

    def __init__(self, n_features: int, n_elements: int):
        super().__init__()
        # W with W Wᵀ = K⁻¹, in the precision of the network; then α (eV), β (eV/Å), largest s
        self.register_buffer("whitening", torch.zeros(n_features, n_features))
        self.register_buffer("energy_scale", torch.zeros(()))
        self.register_buffer("force_scales", torch.zeros(n_elements))
        self.register_buffer("bounds", torch.ones(n_elements))

    def whitened(
        self, features: Float[Tensor, "n_atoms n_last"]
    ) -> Float64[Tensor, "n_atoms n_last"]:
        """Return the last features in the coordinates where K is the identity."""
        return (features @ self.whitening).double()

    def forward(
        self,
        features: Float[Tensor, "n_atoms n_last"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Spread:
        """Return the standard deviations of energies (eV) and forces (eV/Å).

        Parameters
        ----------
        features
            Last features of the atoms, `phicalc.derivatives.Prediction.last_features`.
        element
            Their elements, counted from 0 as the potential does.
        graph
            The batch that they belong to.
        """
        white = self.whitened(features)
        alone = torch.linalg.vector_norm(white, dim=1)
        together = torch.linalg.vector_norm(sum_per_structure(white, graph), dim=1)
        scale = _or_nan(self.energy_scale)
        return Spread(
            energy=scale * together,
            energies=scale * alone,
            forces=_or_nan(self.force_scales)[element] * alone,
            distance=alone / self.bounds.double()[element],
        )


def _or_nan(scale: Float[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
    """Return factors in double precision; NaN where no error was known to find one by."""
    return torch.where(scale > 0, scale.double(), torch.nan)
