"""Latent charges: read from the features of each atom, without equilibration."""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.bounded import bounded
from phicalc.electrostatics.charges.elements import electronegativity
from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.head import Electrostatics, Head, Surroundings
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.widths import GaussianWidths
from phicalc.graph import AtomicGraph
from phicalc.schema import Positive, checked, settings

#: Charge in e that an atom has at the start of a training for each eV by which it is less
#: electronegative than others. Energies and forces are the same with all signs reversed, so that
#: a training without charges or dipoles finds the sign of nature only if it begins there.
_STARTING_CHARGE = 0.05


class LatentCharges(Head):
    """Electrostatic head: node features → charges → Coulomb energy ``½ qᵀAq``.

    ``q_i = w·h_i + q⁰_Z``, shifted by the same amount on every atom of a structure (or fragment) so
    that they sum to its charge. All charges are Gaussians of one width. Charges depend on their
    neighborhood and nothing else: a distant ion does not move them, as it does in
    `ChargeEquilibration`.

    Parameters
    ----------
    n_features
        Width of the node features.
    elements
        Chemical symbols of the model.
    settings
        See `Settings`.

    References
    ----------
    Cheng, npj Computational Materials 11, 80 (2025) (latent Ewald summation).
    """

    @settings
    @dataclass(frozen=True)
    class Settings:
        """Settings of latent charges."""

        smearing: Annotated[float, Positive] = 1.0
        """Gaussian width of every charge in Å."""
        largest_charge: Annotated[float, Positive] | None = None
        """Bound in e of every charge, before what is missing from the total charge is shared out;
        by default there is none."""
        trained_smearing: bool = False
        """Train the width between half and twice `smearing`."""
        force_accuracy: Annotated[float, Positive] = 1e-4
        """Root mean square error in eV/Å that the Coulomb sums may leave in the forces."""

        def __post_init__(self) -> None:
            """Check types and ranges."""
            checked(self)

    widths: GaussianWidths
    has_coulomb = True
    works_unseen = True
    shifts_charges = True
    reads_charges = True

    def __init__(self, n_features: int, elements: tuple[str, ...], settings: Settings):
        super().__init__()
        self.readout = nn.Linear(n_features, 1, bias=False)
        scale = torch.tensor([electronegativity(symbol) for symbol in elements])
        self.offset = nn.Parameter(_STARTING_CHARGE * (scale.mean() - scale))
        self.widths = GaussianWidths([settings.smearing], settings.trained_smearing)
        self.force_accuracy = settings.force_accuracy
        self.largest_charge = settings.largest_charge

    @classmethod
    def from_settings(cls, settings: Settings, surroundings: Surroundings) -> Head:
        """Return a head whose charges start small, with the signs of electronegativities."""
        return cls(surroundings.n_features, surroundings.elements, settings)

    def readouts(self) -> tuple[nn.Linear, ...]:
        """Return the map to charges."""
        return (self.readout,)

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        derivatives: int = 2,
    ) -> Electrostatics:
        """Return charges and energies of a batch; all derivatives are exact."""
        raw = (self.readout(node_features).squeeze(1) + self.offset[element]).double()
        if self.largest_charge is not None:
            raw = bounded(raw, self.largest_charge)
        constraints = ChargeConstraints(graph)
        n_atoms = constraints.total(torch.ones_like(raw)).clamp(min=1)
        missing = constraints.net_charge - constraints.total(raw)
        q = raw + constraints.at_atoms(missing / n_atoms)
        coulomb = CoulombSum(graph, self.widths(element))
        lacking = constraints.at_atoms(missing) if self.training else None
        return Electrostatics(q, *coulomb.atomic_energies(q), missing=lacking)
