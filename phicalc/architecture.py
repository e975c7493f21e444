"""What a potential consists of: everything that defines it except its weights."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from ase.data import atomic_numbers

Head = Literal["none", "qeq", "latent", "spectral", "dirichlet", "solve", "solve+coulomb", "random"]

#: Heads with sums of Coulomb interactions; and those whose charges ignore the total charge.
COULOMB_HEADS, NEUTRAL_HEADS = ("qeq", "latent", "solve+coulomb"), ("spectral", "dirichlet")

#: Heads with Poisson's equation on the graph of atoms.
POISSON_HEADS = ("spectral", "dirichlet", "solve", "solve+coulomb", "random")


@dataclass(frozen=True)
class PotentialConfig:
    """Everything that defines a potential except its weights. JSON-able, see `to_dict`."""

    elements: tuple[str, ...]
    """Chemical symbols the potential knows."""
    cutoff: float = 4.5
    """Cutoff of the network's edges in Å."""
    layers: int = 2
    channels: int = 64
    edge_channels: int | None = None
    """Channels of the messages between atoms; by default `channels`. Fewer are faster."""
    l_max: int = 2
    """Highest degree inside a layer, 0 to 3."""
    hidden_l_max: int = 0
    """Highest degree passed between layers, 0 to `l_max`."""
    correlation: int = 3
    """Body order ν of the product at the nodes: 1 (none), 2 or 3."""
    radial_basis: int = 8
    gate: bool = True
    """Whether a layer ends with a non-linearity; without, the products at the nodes are the only
    one (as in MACE)."""
    readout: Literal["all", "last"] = "all"
    """Layers whose scalars the non-linear readout of the energy sees; the linear one sees all."""
    head: Head = "qeq"
    """Electrostatic head: none, charge equilibration, charges read from the features, or a mode of
    the Φ-Module (``random`` is a control of the same size as ``solve``)."""
    electrostatic_energy: Literal["qeq", "coulomb"] = "qeq"
    """Part of the QEq functional in the total energy: all of it, or ½ qᵀAq only."""
    charge_feedback: Literal["none", "embedding", "network"] = "none"
    """How charges enter the short-range energy: not, in its readout, or by a second network."""
    total_charge_embedding: bool = False
    """Whether the network's input contains the total charge of a structure by its atoms."""
    feedback_layers: int = 1
    """Layers of the second network."""
    charge_basis: int = 16
    """Gaussians in which a charge is expanded for the second network."""
    charge_range: tuple[float, float] = (-1.0, 1.0)
    """Centres of the first and the last of these Gaussians, in e. Charges far outside are not seen:
    take what the labels, or formal charges, reach."""
    hardness: Literal["element", "environment"] = "element"
    """Whether each element has a hardness, or each environment."""
    hardness_floor: float = 1.0
    """Smallest hardness in eV/e²."""
    smearing: Literal["fixed", "trained"] = "fixed"
    """Whether the Gaussian widths of the charges stay as they are (covalent radii, or
    `latent_smearing`), or are trained between half and twice that."""
    latent_smearing: float = 1.0
    """Gaussian width of the charges of the heads ``latent`` and ``solve+coulomb`` in Å."""
    atomic_dipoles: bool = False
    """Whether dipoles of the atoms, read from vectors in the last layer, add to the dipole moment.
    They are no part of the energy but for ``−E·μ`` in an external field."""
    phi_channels: int = 4
    """Charges or potentials of each atom in the Φ-Module."""
    eigenpairs: int = 16
    """Eigenvectors of the Laplacian that the head ``spectral`` uses."""
    screening_floor: float = 0.1
    """Smallest screening κ² of the heads that solve Poisson's equation, in 1/Å."""
    force_accuracy: float = 1e-4
    """Largest root mean square error of the electrostatic sums in the forces, in eV/Å."""
    average_neighbors: float = 30.0
    """Mean number of edges per atom in the training data."""
    energy_scale: float = 1.0
    """Energy in eV that one unit of network output stands for (force RMS of the data)."""
    reference_energies: tuple[float, ...] = ()
    """Energy in eV of each element, taken off before training; empty means zeros."""

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        unknown = [symbol for symbol in self.elements if symbol not in atomic_numbers]
        if unknown or not self.elements or len(set(self.elements)) < len(self.elements):
            raise ValueError(f"elements must be distinct chemical symbols, got {self.elements}")
        if not self.reference_energies:
            object.__setattr__(self, "reference_energies", (0.0,) * len(self.elements))
        if len(self.reference_energies) != len(self.elements):
            raise ValueError(
                f"reference_energies needs one number for each of {self.elements}, "
                f"got {len(self.reference_energies)}"
            )
        self._check_network()
        self._check_head()

    def _check_network(self) -> None:
        """Check sizes."""
        if not 0 <= self.hidden_l_max <= self.l_max <= 3:
            raise ValueError(
                "l_max must be 0 to 3 and hidden_l_max 0 to l_max, "
                f"got l_max={self.l_max}, hidden_l_max={self.hidden_l_max}"
            )
        if self.correlation not in (1, 2, 3):
            raise ValueError(f"correlation must be 1, 2 or 3, got {self.correlation}")
        for name in ("cutoff", "layers", "channels", "radial_basis", "energy_scale",
                     "average_neighbors", "hardness_floor", "feedback_layers",
                     "latent_smearing", "phi_channels", "eigenpairs",
                     "screening_floor", "charge_basis"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        low, high = self.charge_range
        if not low < high:
            raise ValueError(f"charge_range must be two growing numbers (e), got {low} and {high}")
        if self.edge_channels is not None and not self.edge_channels > 0:
            raise ValueError(f"edge_channels must be positive, got {self.edge_channels}")

    def _check_head(self) -> None:
        """Check that nothing is asked for which the head does not have."""
        needs = {
            "charge_feedback": ("none", self.head != "none", "a head with charges"),
            "atomic_dipoles": (False, self.head != "none", "a head with charges"),
            "hardness": ("element", self.head == "qeq", "head='qeq'"),
            "smearing": ("fixed", self.head in COULOMB_HEADS, f"one of the heads {COULOMB_HEADS}"),
        }
        for name, (default, possible, needed) in needs.items():
            if getattr(self, name) != default and not possible:
                raise ValueError(f"{name}={getattr(self, name)!r} needs {needed}")
        if self.atomic_dipoles and self.l_max < 1:
            raise ValueError("atomic_dipoles needs l_max of at least 1, got 0")

    def to_dict(self) -> dict[str, Any]:
        """Return plain types only, ready for JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PotentialConfig":
        """Inverse of `to_dict`.

        Raises
        ------
        ValueError
            For unknown keys (a model of a later version, or a typing error).
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(
                f"unknown potential settings {sorted(unknown)}; known: {sorted(known)}"
            )
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)
