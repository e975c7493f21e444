"""Error bars of results: those of one model from its last layer, as arrays for one structure."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from phicalc.inference.concerns import Concern
from phicalc.potential import Potential


class Uncertainty(NamedTuple):
    """Standard deviations of the results for one structure."""

    energy_std: float
    """Of the energy in eV."""
    energies_std: Float64[np.ndarray, " n_atoms"]
    """Of the energy of each atom in eV."""
    forces_std: Float64[np.ndarray, " n_atoms"]
    """Of the force on each atom in eV/Å: √ of the sum over components."""
    distance: Float64[np.ndarray, " n_atoms"] | None = None
    """Distance of each atom from the training data, over the largest distance of its element
    among them: beyond 1 the model extrapolates. None if nobody knows."""

    @property
    def outside(self) -> Bool[np.ndarray, " n_atoms"]:
        """Whether each atom is unlike all training data; False where nobody knows."""
        if self.distance is None:
            return np.zeros(len(self.energies_std), dtype=bool)
        return self.distance > 1


class ErrorBars:
    """Standard deviations for one structure after the other, by `phicalc.uncertainty`.

    It is NumPy's: for a molecule, tensors take three times as long.

    Parameters
    ----------
    potential
        A potential that has an uncertainty.
    """

    def __init__(self, potential: Potential):
        module = potential.uncertainty
        assert module is not None
        self.element_of_number = potential.element_of_number.cpu().numpy()
        self.whitening = module.whitening.cpu().numpy()
        self.bounds = module.bounds.double().cpu().numpy()
        self.energy_scale, self.force_scales = (
            np.where(scale > 0, scale, np.nan)  # no error was known to find them by
            for scale in (module.energy_scale.cpu().double(), module.force_scales.cpu().double())
        )

    def __call__(
        self,
        features: Float[Tensor, "n_atoms n_last"],
        numbers: Int64[np.ndarray, " n_atoms"],
    ) -> Uncertainty:
        """Return the standard deviations for one structure.

        Parameters
        ----------
        features
            Last features of its atoms, `phicalc.derivatives.Prediction.last_features`.
        numbers
            Their atomic numbers.
        """
        white = (features.detach().cpu().numpy() @ self.whitening).astype(np.float64)
        alone = np.sqrt(np.einsum("ij,ij->i", white, white))
        element = self.element_of_number[numbers]
        return Uncertainty(
            energy_std=float(self.energy_scale * np.linalg.norm(white.sum(axis=0))),
            energies_std=self.energy_scale * alone,
            forces_std=self.force_scales[element] * alone,
            distance=alone / self.bounds[element],
        )


def uncertainty_concerns(uncertainty: Uncertainty | None, atoms: Atoms) -> Iterator[Concern]:
    """Yield the atom that is farthest from the training data, if it is outside of them.

    Parameters
    ----------
    uncertainty
        That of the structure; None if the model has none.
    atoms
        The structure.
    """
    if uncertainty is None or uncertainty.distance is None or not uncertainty.outside.any():
        return
    atom, count = int(uncertainty.distance.argmax()), int(uncertainty.outside.sum())
    others = f" ({count} atoms are outside)" if count > 1 else ""
    symbol = atoms.symbols[atom]
    yield Concern(
        "uncertainty",
        f"atom {atom} ({symbol}) has surroundings unlike the training data, "
        f"{uncertainty.distance[atom]:.3g} times as far out as any {symbol} there{others}; expect "
        f"errors of {uncertainty.forces_std[atom]:.2g} eV/Å in its force and of "
        f"{uncertainty.energy_std:.2g} eV in the energy, or more",
    )
