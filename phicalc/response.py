"""Response of the charges: Born effective charges, polarizability, electrostatic potentials.

The dipole moment of open structures is ``μ = Σ q_i r_i``, plus the dipoles of the atoms if the
potential has them (``atomic_dipoles``); a field E enters the energy as ``−E·μ``. Where the energy
is stationary in the charges (heads whose charges minimize all of it, and charges that no field
moves), Born charges are also derivatives of forces, ``∂F_iβ/∂E_α``.

Charge that flows along links (ACKS2) has a dipole moment along periodic axes too,
``Σ z_i r_i + Σ p_e r_e`` with the formal charges z and the vectors r_e of the links.
"""

import math
import warnings

import torch
from ase.calculators.calculator import PropertyNotImplementedError
from jaxtyping import Float64
from torch import Tensor

from phicalc.derivatives import dipole_sources
from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.sums.boundary import complete_box
from phicalc.graph import AtomicGraph, whole_structures
from phicalc.potential import Potential
from phicalc.units import COULOMB_CONSTANT


def born_effective_charges(
    potential: Potential, graph: AtomicGraph
) -> Float64[Tensor, "n_atoms 3 3"]:
    r"""Born effective charges ``Z*_iαβ = ∂μ_α/∂r_iβ`` of one structure, in e.

    With open axes only, these are the derivatives of the dipole moment, and their sum over the
    atoms is the total charge.

    Along periodic axes a dipole moment does not exist. There the polarization is taken from the
    phases of the shortest reciprocal vectors, ``P_a = Σ q_i exp(2πi s_ia)/2πi`` with fractional
    coordinates s, and its derivative with respect to atom i is turned by the phase of that atom.
    Charge that moves to neighbors then counts with its true distance, as long as that is a small
    part of the cell. The same charge is added to every atom so that the sum over atoms is the total
    charge. Charge that flows along links counts with the vectors of the links, and needs neither.
    Equilibrated charges flow over any distance, as in a metal: along periodic axes their Born
    charges would depend on the size of the cell, and are refused.

    Parameters
    ----------
    potential
        With an electrostatic head.
    graph
        One prepared structure.

    Raises
    ------
    ase.calculators.calculator.PropertyNotImplementedError
        For a potential without charges or with the head ``spectral``; for charge equilibration
        along periodic axes.

    References
    ----------
    Zhong et al., arXiv:2504.05169 (Born charges of latent charges by phases).
    """
    _refuse_flow_along_axes(potential, graph)
    graph = graph._replace(positions=graph.positions.detach().clone().requires_grad_())
    charges, atomic_dipoles = _sources(potential, graph)
    axes = _axes(graph)
    fractional = graph.positions @ torch.linalg.inv(axes)
    rows = []
    for axis in range(3):
        if bool(graph.pbc[0, axis]):
            angle = 2 * math.pi * fractional[:, axis]
            sine, cosine = (charges * wave(angle) for wave in (torch.sin, torch.cos))
            real, imaginary = (
                torch.autograd.grad(part.sum(), graph.positions, retain_graph=True)[0]
                for part in (sine, -cosine)
            )
            turn = angle.detach()[:, None]
            # Real part of exp(−i angle) · (real + i imaginary)/2π
            row = (torch.cos(turn) * real + torch.sin(turn) * imaginary) / (2 * math.pi)
        else:
            moment = (charges * fractional[:, axis]).sum()
            (row,) = torch.autograd.grad(moment, graph.positions, retain_graph=True)
        rows.append(row)
    born = torch.einsum("anb,ax->nxb", torch.stack(rows), axes)
    if atomic_dipoles is not None:  # they need no phases: translations leave them alone
        parts = [_derivative(part, graph.positions) for part in atomic_dipoles.sum(0)]
        born = born + torch.stack(parts, dim=1)
    if bool(graph.pbc.any()):
        missing = charges.sum() * torch.eye(3).to(born) - born.sum(0)
        born = born + missing / len(born)
    return born.detach()


def polarizability(potential: Potential, graph: AtomicGraph) -> Float64[Tensor, "3 3"]:
    """Polarizability ``∂μ_α/∂E_β`` of one structure in e Å²/V; with periodic axes, of one cell.

    It is that of the charges alone: dipoles of the atoms do not respond to a field. Along periodic
    axes E is the macroscopic field.

    Parameters
    ----------
    potential
        With charges that respond to fields and minimize the energy.
    graph
        One prepared structure.

    Raises
    ------
    ase.calculators.calculator.PropertyNotImplementedError
        For charges that no field moves or that do not minimize the whole energy; along periodic
        axes also for heads without a polarization there.
    """
    _refuse_rigid_charges(potential)
    if bool(graph.pbc.any()) and not potential.head.polarizes_cells:
        raise PropertyNotImplementedError(
            f"along periodic axes (pbc={graph.pbc[0].tolist()}) the polarizability of this model "
            "is not defined: it needs charge that flows along links (head 'acks2') between formal "
            "charges that depend on the element only"
        )
    field = graph.external_field
    field = graph.positions.new_zeros(graph.n_structures, 3) if field is None else field
    field = field.detach().clone().requires_grad_()
    charges, dipoles = _sources(potential, graph._replace(external_field=field))
    moment = charges @ graph.positions
    moment = moment if dipoles is None else moment + dipoles.sum(0)
    rows = [_derivative(component, field)[0] for component in moment]
    return torch.stack(rows).detach()


def dielectric_tensor(potential: Potential, graph: AtomicGraph) -> Float64[Tensor, "3 3"]:
    """Dielectric tensor ``ε∞ = 1 + 4π k_e α/V`` of a crystal whose atoms stand still, no unit.

    Parameters
    ----------
    potential
        With charges that flow along links.
    graph
        One prepared structure with three periodic axes.

    Raises
    ------
    ase.calculators.calculator.PropertyNotImplementedError
        For structures with open axes, and as of `polarizability`.
    """
    if not bool(graph.pbc.all()):
        raise PropertyNotImplementedError(
            f"the dielectric tensor is that of crystals, got pbc={graph.pbc[0].tolist()}: use the "
            "polarizability"
        )
    volume = torch.linalg.det(graph.cell[0]).abs()
    susceptibility = COULOMB_CONSTANT * polarizability(potential, graph) / volume
    return torch.eye(3).to(susceptibility) + 4 * math.pi * susceptibility


def electrostatic_potential(
    potential: Potential, graph: AtomicGraph
) -> Float64[Tensor, " n_atoms"]:
    """Electrostatic potential of the charges at the atoms, in V (the own charge included).

    It is the derivative of the electrostatic energy with respect to each charge; of the Φ-Module,
    to that of its first channel. With the head ``spectral`` a warning says if it is not unique.

    Parameters
    ----------
    potential
        With an electrostatic head.
    graph
        One prepared structure.

    Raises
    ------
    ase.calculators.calculator.PropertyNotImplementedError
        For a potential without charges.
    """
    _refuse_no_charges(potential)
    if not _is_unique(potential, graph):
        warnings.warn(
            "the graph of this structure has equal eigenvalues: its potential and charges depend "
            "on the order of the atoms",
            UserWarning,
            stacklevel=3,
        )
    with torch.no_grad():
        found = potential(graph, derivatives=1).potential
    assert found is not None
    return found


def _is_unique(potential: Potential, graph: AtomicGraph) -> bool:
    """Whether potential and charges follow from the structure: not from eigenvectors at a tie."""
    return potential.head.charges_are_unique(graph)


def electrode_potentials(potential: Potential, graph: AtomicGraph) -> Float64[Tensor, " n_atoms"]:
    """Potential in V of the reservoir that would leave the charges of each atom as they are.

    It is ``∂E/∂Q`` of the fragment of the atom (or of the structure), or the potential that was
    given. Its zero is that of the training data: if they hold structures with several total
    charges, it refers to electrons at rest far away.

    Parameters
    ----------
    potential
        With charges that sum to the total charge.
    graph
        One prepared structure.

    Raises
    ------
    ase.calculators.calculator.PropertyNotImplementedError
        For a potential without charges, or whose charges ignore the total charge.
    """
    _refuse_no_charges(potential)
    if not potential.head.conserves_total_charge:
        raise PropertyNotImplementedError(
            f"the charges of the head {potential.config.head.name!r} sum to zero whatever the "
            "total charge is: there is no potential ∂E/∂Q"
        )
    fragments = graph.fragments or whole_structures(graph)
    charge = fragments.charge.detach().clone().requires_grad_()
    graph = graph._replace(fragments=fragments._replace(charge=charge))
    slope = _derivative(potential(graph, derivatives=2).energy.sum(), charge)
    return (ChargeConstraints(graph).at_atoms(slope) + fragments.potential).detach()


def _sources(
    potential: Potential, graph: AtomicGraph
) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "n_atoms 3"] | None]:
    """Charges and dipoles of the dipole moment, which can be differentiated once."""
    _refuse_no_charges(potential)
    if not potential.head.charges_differentiable:
        raise PropertyNotImplementedError(
            f"charges of the head {potential.config.head.name!r} have no derivatives: eigenvectors "
            "are constants there"
        )
    return dipole_sources(potential(graph, derivatives=2))


def _refuse_no_charges(potential: Potential) -> None:
    """Refuse potentials without charges."""
    if not potential.head.has_charges:
        raise PropertyNotImplementedError("this model has no charges")


def has_born_charges(potential: Potential, graph: AtomicGraph) -> bool:
    """Whether `born_effective_charges` are defined for structures with these boundary conditions.

    Parameters
    ----------
    potential
        Any.
    graph
        One or several structures.
    """
    head = potential.head
    metallic = head.conducts and bool(graph.pbc.any())
    return head.has_charges and head.charges_differentiable and not metallic


def has_polarizability(potential: Potential, graph: AtomicGraph) -> bool:
    """Whether a `polarizability` is defined for structures with these boundary conditions.

    Parameters
    ----------
    potential
        Any.
    graph
        One or several structures.
    """
    head = potential.head
    defined = head.has_charges and head.charges_flow and head.is_stationary
    return defined and (head.polarizes_cells or not bool(graph.pbc.any()))


def _refuse_flow_along_axes(potential: Potential, graph: AtomicGraph) -> None:
    """Refuse Born charges that would depend on the size of the cell."""
    if potential.head.conducts and bool(graph.pbc.any()):
        raise PropertyNotImplementedError(
            "charge equilibration conducts: charge flows over any distance, and Born charges along "
            f"periodic axes (pbc={graph.pbc[0].tolist()}) would depend on the size of the cell. "
            "Use a model with another head, a cluster without periodic axes, or the charges "
            "themselves (get_charges)"
        )


def _refuse_rigid_charges(potential: Potential) -> None:
    """Refuse polarizabilities of charges that no field moves, or that break ``μ = −∂E/∂E``."""
    _refuse_no_charges(potential)
    if not potential.head.charges_flow:
        raise PropertyNotImplementedError(
            f"no field moves the charges of the head {potential.config.head.name!r}: this model "
            "has no polarizability. Use a model with charge equilibration"
        )
    if not potential.head.is_stationary:
        raise PropertyNotImplementedError(
            "the charges of this model do not minimize its whole energy (charge feedback, or only "
            "a part of their functional): its dipole moment in a field is not −∂E/∂field, and "
            "there is no polarizability. Use a model without feedback"
        )


def _derivative(value: Float64[Tensor, ""], of: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
    """Gradient that is zero where the value does not depend on the input."""
    if not value.requires_grad:
        return torch.zeros_like(of)
    (gradient,) = torch.autograd.grad(value, of, retain_graph=True, allow_unused=True)
    return torch.zeros_like(of) if gradient is None else gradient


def _axes(graph: AtomicGraph) -> Float64[Tensor, "3 3"]:
    """Lattice vectors, completed by vectors of 1 Å perpendicular to them along open axes."""
    return complete_box(graph.cell[0], graph.pbc[0], 1.0)
