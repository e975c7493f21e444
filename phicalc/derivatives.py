"""Energy → forces and stress, dipole moment → response, in one place and with one sign convention.

Forces are ``F = −∂E/∂r``. The stress is ``σ = (1/V) ∂E/∂ε`` for a symmetric strain ε of positions
and cell, positive under tension, in eV/Å³ (ASE's convention). Born charges are ``∂μ_α/∂r_β``,
polarizabilities ``∂μ_α/∂E_β`` for a field E.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phicalc.electrostatics.head import Formal
from phicalc.graph import AtomicGraph, sum_per_structure, volumes
from phicalc.potential import Potential, PotentialOutput

#: What `predict` derives from the dipole moment, where it is asked to.
RESPONSES = ("polarizability", "born_charges")


class Prediction(NamedTuple):
    """What a potential says about a batch."""

    energy: Float64[Tensor, " n_structures"]
    """Total energies in eV."""
    atomic_energies: Float64[Tensor, " n_atoms"]
    """Their decomposition over atoms in eV."""
    forces: Float64[Tensor, "n_atoms 3"]
    """Forces in eV/Å."""
    stress: Float64[Tensor, "n_structures 3 3"] | None
    """Stress in eV/Å³, if asked for; only meaningful for cells with a volume."""
    charges: Float64[Tensor, " n_atoms"] | None
    """Partial charges in e, if the potential has them."""
    atomic_dipoles: Float64[Tensor, "n_atoms 3"] | None
    """Dipoles of the atoms in e·Å beside those of the charges, if the potential has them."""
    terms: dict[str, Float64[Tensor, " n_structures"]]
    """Named energy terms in eV."""
    residual: Float64[Tensor, "n_atoms c"] | None = None
    """What is left of Poisson's equation in e, if the head solves it on the graph."""
    formal: Formal | None = None
    """Formal charges, if the head has them."""
    missing: Float64[Tensor, " n_atoms"] | None = None
    """What the charges lacked of the total charge in e (`Head.reads_charges`); None in evaluation
    mode."""
    polarizability: Float64[Tensor, "n_structures 3 3"] | None = None
    """``∂μ_α/∂E_β`` in e Å²/V, if asked for."""
    born_charges: Float64[Tensor, "n_atoms 3 3"] | None = None
    """``∂μ_α/∂r_iβ`` in e, indices i, α, β, if asked for."""
    last_features: Float[Tensor, "n_atoms n_last"] | None = None
    """Features that the short-range energy is linear in; None in training mode."""


def predict(
    potential: Potential,
    graph: AtomicGraph,
    *,
    stress: bool = False,
    create_graph: bool = False,
    strain: Float64[Tensor, "n_structures 3 3"] | None = None,
    responses: Collection[str] = (),
) -> Prediction:
    """Evaluate energies, forces, charges and, if asked for, the stress of a prepared batch.

    Parameters
    ----------
    potential
        The potential.
    graph
        Batch that has been through ``potential.prepare``.
    stress
        Whether to strain the cells as well; structures without a volume have the stress NaN.
    create_graph
        Keep everything differentiable with respect to the potential's parameters (training);
        otherwise the results are detached.
    strain
        Zeros that require a gradient, for the stress; made here by default. Code that is compiled
        with second derivatives needs them, like positions that require one, from outside.
    responses
        Those of `RESPONSES` to compute as well, with the moment ``Σ q_i r_i`` of heads whose
        charges differentiate; along periodic axes only heads with a polarization have one.

    Returns
    -------
    prediction
        All quantities in eV, Å and e.
    """
    positions = graph.positions
    if not (create_graph and positions.requires_grad):
        positions = positions.detach().requires_grad_()
    inputs = [positions]
    deformed = graph._replace(positions=positions)
    if strain is None:
        strain = no_strain(graph) if stress else graph.cell.new_zeros(graph.cell.shape)
    if stress:
        inputs.append(strain)
        deformed = deform(deformed, strain)
    causes = {"born_charges": positions}
    if responses:
        causes["polarizability"] = positions.new_zeros(graph.n_structures, 3).requires_grad_()
        deformed = deformed._replace(external_field=causes["polarizability"])
    orders = 2 if create_graph else 1
    output = potential(deformed, derivatives=orders + bool(responses))
    wanted = {name: causes[name] for name in responses}
    found = _responses(output, deformed, wanted, create_graph)
    total = output.energy.sum()
    gradients = torch.autograd.grad(total, inputs, create_graph=create_graph, allow_unused=True)
    forces = -_or_zero(gradients[0], positions)
    tension = _per_volume(_or_zero(gradients[1], strain), graph) if stress else None
    prediction = Prediction(
        energy=output.energy,
        atomic_energies=output.atomic_energies,
        forces=forces,
        stress=tension,
        charges=output.charges,
        atomic_dipoles=output.atomic_dipoles,
        terms=output.terms,
        residual=output.residual,
        formal=output.formal,
        missing=output.missing,
        last_features=output.last_features,
        **found,
    )
    return prediction if create_graph else _cut(prediction)


def dipole_sources(
    output: PotentialOutput,
) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "n_atoms 3"] | None]:
    """Return charges in e and dipoles in e·Å whose sum is the dipole moment.

    They are those of the polarization for heads that have one; dipoles are None if there are none.
    """
    assert output.charges is not None
    if output.polarization is None:
        return output.charges, output.atomic_dipoles
    charges, dipoles = output.polarization
    return charges, dipoles if output.atomic_dipoles is None else dipoles + output.atomic_dipoles


def _responses(
    output: PotentialOutput,
    graph: AtomicGraph,
    causes: dict[str, Float64[Tensor, "_ 3"]],
    create_graph: bool,
) -> dict[str, Float64[Tensor, "_ 3 3"]]:
    """Return derivatives of the dipole moments with respect to fields and positions, by name.

    Moments are about the origin: their derivatives are those about any point, if the point stays.
    """
    if not causes:
        return {}
    charges, dipoles = dipole_sources(output)
    each = charges[:, None] * graph.positions
    moments = sum_per_structure(each if dipoles is None else each + dipoles, graph)
    return {name: _jacobian(moments, cause, create_graph) for name, cause in causes.items()}


def _jacobian(
    moments: Float64[Tensor, "n_structures 3"], of: Float64[Tensor, "n 3"], create_graph: bool
) -> Float64[Tensor, "n 3 3"]:
    """Return the derivatives of the moments, those of each structure by its own rows of `of`."""
    rows = [
        _or_zero(
            torch.autograd.grad(
                component, of, create_graph=create_graph, retain_graph=True, allow_unused=True
            )[0],
            of,
        )
        for component in moments.sum(0)
    ]
    return torch.stack(rows, dim=1)


def no_strain(graph: AtomicGraph) -> Float64[Tensor, "n_structures 3 3"]:
    """Return zeros that require a gradient: the strain that the stress is a derivative by."""
    return graph.cell.new_zeros(graph.cell.shape).requires_grad_()


def deform(graph: AtomicGraph, strain: Float64[Tensor, "n_structures 3 3"]) -> AtomicGraph:
    """Apply the symmetric part of a strain to positions and cells of each structure."""
    identity = torch.eye(3, dtype=strain.dtype, device=strain.device)
    deformation = identity + 0.5 * (strain + strain.transpose(1, 2))
    if graph.n_structures == 1:
        positions = graph.positions @ deformation[0]
    else:
        positions = torch.einsum("na,nab->nb", graph.positions, deformation[graph.batch])
    return graph._replace(positions=positions, cell=graph.cell @ deformation)


def _per_volume(
    virial: Float64[Tensor, "n_structures 3 3"], graph: AtomicGraph
) -> Float64[Tensor, "n_structures 3 3"]:
    """Divide by the volumes of the cells in Å³; left-handed cells are legal."""
    volume = volumes(graph.cell)[:, None, None]
    # the first choice keeps infinities out of the second derivatives of the others in a batch
    divided = virial / torch.where(volume > 0, volume, 1.0)
    return torch.where(volume > 0, divided, float("nan"))


def _or_zero(
    gradient: Float64[Tensor, "*n"] | None, like: Float64[Tensor, "*n"]
) -> Float64[Tensor, "*n"]:
    """Gradient, or zeros where the energy does not depend on the input (an isolated atom)."""
    return torch.zeros_like(like) if gradient is None else gradient


def _cut(value: Any) -> Any:
    """Cut tensors from the graph of the derivatives, those in tuples and dictionaries, too."""
    if isinstance(value, dict):
        return {name: _cut(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return type(value)(*map(_cut, value))
    return None if value is None else value.detach()
