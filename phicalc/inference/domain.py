"""What the training of a model covered, as far as its card says, and structures beyond it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from ase import Atoms
from ase.data import atomic_numbers
from jaxtyping import Float64
from torch import Tensor

from phicalc.card import ModelCard
from phicalc.graph import Conditions
from phicalc.inference.concerns import Concern
from phicalc.inference.plausibility import PLAUSIBLE
from phicalc.potential import Potential

#: Part of the smallest distance in the training data below which a pair is reported.
_BELOW_NEAREST = 0.9


class Domain(NamedTuple):
    """What the training data of a model covered; None where nobody knows."""

    model: str
    """Name of the model."""
    charge_range: tuple[float, float] | None = None
    """Smallest and largest total charge in e."""
    periodic: bool | None = None
    """Whether there were periodic structures."""
    closed_shell: bool | None = None
    """Whether all structures had an even number of electrons."""
    stress: bool | None = None
    """Whether the stress was trained."""
    nearest: Float64[Tensor, "119 119"] | None = None
    """Smallest distance in Å of each pair of elements; 0 where there was no pair."""

    def limits(self) -> Float64[Tensor, "119 119"]:
        """Return the distance in Å of each pair of elements below which atoms are too close."""
        return PLAUSIBLE if self.nearest is None else self.nearest * _BELOW_NEAREST


def domain_of(card: ModelCard) -> Domain:
    """Return what a card says about the training data.

    The entry ``domain`` of ``card.data`` is a dictionary with any of ``periodic`` and
    ``closed_shell`` (booleans) and ``nearest_distances`` (Å by pair, such as ``{"H-O": 0.91}``).
    Stress was trained if the loss of the card's training gave it a weight.
    """
    known: Mapping[str, Any] = card.data.get("domain") or {}
    loss = card.training.get("config", {}).get("loss", {})
    weight = loss.get("stress", {}).get("weight")
    return Domain(
        model=card.name,
        charge_range=card.charge_range,
        periodic=known.get("periodic"),
        closed_shell=known.get("closed_shell"),
        stress=None if weight is None else weight > 0,
        nearest=_nearest(known.get("nearest_distances") or {}),
    )


def _nearest(distances: Mapping[str, float]) -> Float64[Tensor, "119 119"] | None:
    """Return the table of smallest distances in Å; None if there are none."""
    if not distances:
        return None
    table = torch.zeros(119, 119, dtype=torch.float64)
    for pair, distance in distances.items():
        first, second = (atomic_numbers[symbol] for symbol in pair.split("-"))
        table[first, second] = table[second, first] = distance
    return torch.maximum(table, PLAUSIBLE / _BELOW_NEAREST)


def structure_concerns(
    atoms: Atoms,
    conditions: Conditions,
    domain: Domain | None,
    potential: Potential,
    stress: bool,
) -> Iterator[Concern]:
    """Yield reasons to doubt a structure that its composition, charge and axes give.

    Parameters
    ----------
    atoms, conditions
        The structure.
    domain
        That of the model; None for a potential without a card, of which nothing is known.
    potential
        The model.
    stress
        Whether the stress is computed.
    """
    charge = conditions.total_charge
    head = potential.head
    blind = not head.conserves_total_charge and potential.charge_embedding is None
    if charge != 0 and blind:
        kind = "charges that sum to zero" if head.has_charges else "no charges"
        text = f"this model has {kind} and gives the energy of the neutral structure"
        yield Concern(f"charge {charge:g}", f"total charge {charge:g} e: {text}")
    if domain is None:
        return
    if conditions.charge_is_fixed:
        yield from _charge_concerns(atoms, charge, domain)
    elif domain.charge_range is None or domain.charge_range[0] == domain.charge_range[1]:
        yield Concern(
            "reservoir",
            f"electrode potential: model {domain.model!r} was trained on one total charge alone, "
            "so only differences of potentials mean something, and 0 V is arbitrary",
        )
    if domain.periodic is False and atoms.pbc.any():
        yield Concern(
            "periodic",
            f"periodic structure (pbc={atoms.pbc.tolist()}): model {domain.model!r} was trained on "
            "isolated structures alone; treat the results as an extrapolation",
        )
    if stress and domain.stress is False:
        yield Concern(
            "stress",
            f"stress: model {domain.model!r} was not trained on stress; do not rely on it to relax "
            "cells or for dynamics at constant pressure",
        )


def _charge_concerns(atoms: Atoms, charge: float, domain: Domain) -> Iterator[Concern]:
    """Yield reasons to doubt a total charge in e: its value, and the number of electrons left."""
    low, high = domain.charge_range or (charge, charge)
    if not low <= charge <= high:
        yield Concern(
            f"charge {charge:g}",
            f"total charge {charge:g} e: model {domain.model!r} was trained on total charges from "
            f"{low:g} to {high:g} e; treat the results as an extrapolation",
        )
    electrons = float(atoms.numbers.sum()) - charge
    odd = abs(electrons % 2 - 1) < 1e-6
    unknown = domain.closed_shell is None and not atoms.pbc.any()
    if odd and (domain.closed_shell or unknown):
        data = "holds closed shells alone" if domain.closed_shell else "may hold no radicals"
        yield Concern(
            "radical",
            f"{atoms.get_chemical_formula()} with total charge {charge:g} e has an odd number of "
            f"electrons ({electrons:.0f}), and the training data of model {domain.model!r} {data}; "
            "check the total charge, and look for missing atoms",
        )
