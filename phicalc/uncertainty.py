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

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn


class LastLayerUncertainty(nn.Module):
    """What standard deviations are made of, kept beside the weights; see `phicalc.inference`.

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
