"""Error bars of results: those of one model from its last layer, as arrays for one structure."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float64

from phicalc.derivatives import Prediction
from phicalc.graph import AtomicGraph
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


def uncertainties(
    potential: Potential, prediction: Prediction, graph: AtomicGraph
) -> list[Uncertainty | None]:
    """Return the uncertainty of each structure of a batch; None without one in the potential.

    Parameters
    ----------
    potential, prediction, graph
        What was predicted for which batch by which potential.
    """
    if potential.uncertainty is None or prediction.last_features is None:
        return [None] * graph.n_structures
    device = potential.device
    element = potential.element_of_number[graph.atomic_numbers.to(device)]
    graph = graph._replace(batch=graph.batch.to(device))
    with torch.no_grad():
        spread = potential.uncertainty(prediction.last_features, element, graph)
        per_atom = torch.stack([spread.energies, spread.forces, spread.distance]).cpu()
    sizes = torch.bincount(graph.batch, minlength=graph.n_structures).tolist()
    parts = torch.split(per_atom, sizes, dim=1)
    return [
        Uncertainty(energy, *part.numpy())
        for energy, part in zip(spread.energy.tolist(), parts, strict=True)
    ]


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
