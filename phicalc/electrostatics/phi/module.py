"""The Φ-Module: Poisson's equation on the graph of atoms, behind any network.

Node features go in. A potential φ and charges ρ of the atoms with ``L φ = ρ`` (or a screened form)
and the energy ``½ φᵀρ`` come out; L is that of `phicalc.electrostatics.laplacian`.
"""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn.functional import softplus

from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.laplacian import Laplacian, graph_laplacian, random_laplacian
from phicalc.electrostatics.phi.eigenpairs import lowest_eigenvectors
from phicalc.electrostatics.phi.poisson import screened_potential
from phicalc.graph import AtomicGraph, mean_per_structure, sum_per_structure
from phicalc.nn import MLP, Linear

PhiMode = Literal["spectral", "dirichlet", "solve", "random"]

#: Hidden units of the networks that read charges, potentials and amplitudes from the features.
_WIDTH = 32
#: Smallest weight of an atom among those that share the charge that is missing.
_SMALLEST_SHARE = 1e-12


class Field(NamedTuple):
    """What a mode makes of the features, in units of the module's strength."""

    atomic_energies: Float64[Tensor, " n_atoms"]
    """Shares of ``½ φᵀρ`` in e²Å; only their sums over structures have derivatives."""
    potential: Float64[Tensor, " n_atoms"]
    """φ of the first channel in e Å."""
    charges: Float64[Tensor, " n_atoms"]
    """ρ of the first channel in e."""
    residual: Float64[Tensor, "n_atoms c"]
    """ρ − L φ (with κ² φ where there is screening) in e: zero, if the solver did its work."""


class PhiOutput(NamedTuple):
    """Result of a `PhiModule`."""

    energy: Float64[Tensor, " n_structures"]
    """Energies in eV."""
    atomic_energies: Float64[Tensor, " n_atoms"]
    """Their shares in eV; only sums over structures have derivatives."""
    potential: Float64[Tensor, " n_atoms"]
    """Derivative of the energy by the charge of each atom in eV/e (first channel)."""
    charges: Float64[Tensor, " n_atoms"]
    """ρ in e (first channel)."""
    residual: Float64[Tensor, "n_atoms c"]
    """What is left of Poisson's equation in e."""


class PhiModule(nn.Module):
    """Energy, potential and charges from the features of the atoms.

    =========== ================================================================= ==================
    mode        from the features                                                 energy
    =========== ================================================================= ==================
    spectral    amplitudes α_m of the k lowest eigenvectors of L, by the mean     ``½ Σ λ_m α_m²``
                over the atoms of a structure; φ = Uα, ρ = UΛα
    dirichlet   potentials φ_i in several channels; ρ = Lφ                        ``½ Σ φᵀLφ``
    solve       charges q_i in several channels; ``(L + κ²) φ = q``               ``½ Σ qᵀφ``
    random      the same, with a random graph in place of the structure (control) ``½ Σ qᵀφ``
    =========== ================================================================= ==================

    The energy is multiplied by a trainable strength. ``solve`` is the one for dynamics: extensive,
    smooth, and its charges sum to the total charge. ``spectral`` is the original proposal; it is
    not size consistent, and has kinks where eigenvalues cross. In ``spectral`` and ``dirichlet``
    charges sum to zero whatever the total charge is, and φ is given with its mean taken off.

    Parameters
    ----------
    n_features
        Width of the node features.
    cutoff
        Length in Å at which links of the graph end; not longer than the edges of the graphs.
    mode
        See above.
    channels
        Potentials (``dirichlet``) or charges (``solve``, ``random``) of each atom.
    eigenpairs
        k of ``spectral``.
    screening_floor
        κ₀², the smallest κ² of ``solve`` in 1/Å.
    scale
        Energy in eV that one unit of strength stands for.
    links
        Mean number of links of an atom in ``random``.
    takes_charges
        Whether the charges of the first channel of ``solve`` are given to it, and not read.

    Raises
    ------
    ValueError
        For an unknown mode.

    References
    ----------
    Φ-Module: arXiv:2505.14606 (``spectral``).
    """

    def __init__(
        self,
        n_features: int,
        cutoff: float,
        *,
        mode: PhiMode = "solve",
        channels: int = 4,
        eigenpairs: int = 16,
        screening_floor: float = 0.1,
        scale: float = 1.0,
        links: float = 30.0,
        takes_charges: bool = False,
    ):
        super().__init__()
        if mode not in get_args(PhiMode):
            raise ValueError(f"mode must be one of {get_args(PhiMode)}, got {mode!r}")
        self.cutoff, self.mode, self.scale, self.links = cutoff, mode, scale, links
        self.strength = nn.Parameter(torch.ones(()))
        self.field: Spectral | Dirichlet | Screened
        if mode == "spectral":
            self.field = Spectral(n_features, eigenpairs)
        elif mode == "dirichlet":
            self.field = Dirichlet(n_features, channels)
        else:
            self.field = Screened(n_features, channels, screening_floor, takes_charges)

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        graph: AtomicGraph,
        derivatives: int = 2,
        charges: Float64[Tensor, " n_atoms"] | None = None,
    ) -> PhiOutput:
        """Energies, potentials and charges of a batch.

        Of the energy so many `derivatives` are exact: 1 for forces, 2 for training on forces. The
        `charges` in e are those of the first channel where the module takes them.
        """
        given = () if charges is None else (charges,)
        field = self.field(node_features, self.laplacian(graph), derivatives, *given)
        unit = self.scale * self.strength.double()
        atomic_energies = unit * field.atomic_energies
        energy = sum_per_structure(atomic_energies, graph)
        potential = unit * field.potential
        return PhiOutput(energy, atomic_energies, potential, field.charges, field.residual)

    def laplacian(self, graph: AtomicGraph) -> Laplacian:
        """L of a batch."""
        if self.mode == "random":
            return random_laplacian(graph, self.cutoff, round(self.links))
        return graph_laplacian(graph, self.cutoff)


class Screened(nn.Module):
    """Charges q of each atom, and the potential they make: ``(L + κ²) φ = q``.

    The charges of the first channel sum to the net charge of each structure (or fragment): they are
    given, or what is missing is shared out by weights that are read from the features. Further
    channels are free.

    Parameters
    ----------
    n_features, channels
        Sizes.
    screening_floor
        Smallest κ² in 1/Å.
    takes_charges
        Whether those of the first channel are given.
    """

    def __init__(
        self, n_features: int, channels: int, screening_floor: float, takes_charges: bool = False
    ):
        super().__init__()
        self.readout = MLP(n_features, _WIDTH, channels - takes_charges)
        self.share = None if takes_charges else Linear(n_features, 1)
        self.raw_screening = nn.Parameter(torch.zeros(channels))
        self.screening_floor = screening_floor

    def forward(
        self,
        features: Float[Tensor, "n_atoms c"],
        laplacian: Laplacian,
        derivatives: int,
        charges: Float64[Tensor, " n_atoms"] | None = None,
    ) -> Field:
        """Read the charges and solve; those of the first channel are `charges` (e) if given."""
        read = self.readout(features).double()
        if charges is None:
            read = self._completed(read, features, laplacian.graph)
        else:
            read = torch.cat([charges[:, None], read], dim=1)
        return self._solved(read, laplacian, derivatives)

    def _solved(
        self,
        charges: Float64[Tensor, "n_atoms channels"],
        laplacian: Laplacian,
        derivatives: int,
    ) -> Field:
        """Return what these charges make."""
        screening = self.screening()
        # The energy is stationary in φ, which may lag one order behind.
        potential = screened_potential(laplacian, screening, charges, derivatives - 1)
        image = laplacian(potential) + screening * potential
        energies = (charges * potential - 0.5 * potential * image).sum(1)
        return Field(energies, potential[:, 0], charges[:, 0], charges - image)

    def screening(self) -> Float64[Tensor, " channels"]:
        """κ² of each channel in 1/Å."""
        return self.screening_floor + softplus(self.raw_screening.double())

    def _completed(
        self,
        raw: Float64[Tensor, "n_atoms channels"],
        features: Float[Tensor, "n_atoms c"],
        graph: AtomicGraph,
    ) -> Float64[Tensor, "n_atoms channels"]:
        """Share out what the first channel lacks of the net charge."""
        assert self.share is not None
        constraints = ChargeConstraints(graph)
        # Above zero, however far the features are from those of training: the sum must hold.
        share = softplus(self.share(features).double().squeeze(1)) + _SMALLEST_SHARE
        missing = constraints.net_charge - constraints.total(raw[:, 0])
        each = missing / constraints.total(share).clamp(min=_SMALLEST_SHARE)
        first = raw[:, 0] + share * constraints.at_atoms(each)
        return torch.cat([first[:, None], raw[:, 1:]], dim=1)


class Dirichlet(nn.Module):
    """Potentials φ of each atom, and the charges ``ρ = L φ`` that make them.

    Parameters
    ----------
    n_features, channels
        Sizes.
    """

    def __init__(self, n_features: int, channels: int):
        super().__init__()
        self.readout = MLP(n_features, _WIDTH, channels)

    def forward(
        self, features: Float[Tensor, "n_atoms c"], laplacian: Laplacian, derivatives: int
    ) -> Field:
        """Read the potentials; all `derivatives` are exact."""
        potential = self.readout(features).double()
        charges = laplacian(potential[:, :1])
        energies = laplacian.atomic_energies(potential).sum(1)
        centred = without_mean(potential[:, 0], laplacian.graph)
        return Field(energies, centred, charges[:, 0], torch.zeros_like(charges))


class Spectral(nn.Module):
    """Amplitudes of the lowest eigenvectors of L, from the mean of the features of a structure.

    Eigenvectors are constants: ``λ_m = u_mᵀ L u_m`` has the right derivatives all the same.

    Parameters
    ----------
    n_features, eigenpairs
        Sizes.
    """

    def __init__(self, n_features: int, eigenpairs: int):
        super().__init__()
        self.eigenpairs = eigenpairs
        self.encode = MLP(n_features, _WIDTH, _WIDTH)
        self.amplitudes = MLP(_WIDTH, _WIDTH, eigenpairs)

    def forward(
        self, features: Float[Tensor, "n_atoms c"], laplacian: Laplacian, derivatives: int
    ) -> Field:
        """Read the amplitudes; of the energy all `derivatives` are exact."""
        graph = laplacian.graph
        vectors = lowest_eigenvectors(laplacian, self.eigenpairs)  # (n_atoms, k)
        mean = mean_per_structure(self.encode(features).double(), graph).to(features)
        waves = vectors * self.amplitudes(mean).double()[graph.batch]  # α_m u_m
        eigenvalues = sum_per_structure(2 * laplacian.atomic_energies(vectors), graph).detach()
        charges, energies = laplacian(waves), laplacian.atomic_energies(waves).sum(1)
        residual = (eigenvalues[graph.batch] * waves - charges).sum(1, keepdim=True)
        return Field(energies, without_mean(waves.sum(1), graph), charges.sum(1), residual)


def without_mean(
    values: Float64[Tensor, " n_atoms"], graph: AtomicGraph
) -> Float64[Tensor, " n_atoms"]:
    """Take the mean over each structure off: L does not see it."""
    return values - mean_per_structure(values, graph)[graph.batch]
