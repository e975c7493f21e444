"""What the training of a model covered, as far as its card says, and structures beyond it."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from ase import Atoms
from ase.data import atomic_numbers
from jaxtyping import Float64
from torch import Tensor

from phicalc.card import ModelCard
from phicalc.domain import Domain
from phicalc.domain.environments import bonded_to
from phicalc.domain.frames import density_of
from phicalc.elements import symbols_of_pair
from phicalc.graph import Conditions
from phicalc.inference.closeness import PLAUSIBLE
from phicalc.inference.concerns import Concern
from phicalc.inference.plausibility import LargestResults
from phicalc.potential import Potential

#: Part of the smallest distance in the training data below which a pair is reported.
_BELOW_NEAREST = 0.9
#: Densities are reported beyond the range of the training data by more than this part.
_BEYOND_DENSITY = 0.1
#: Forces and charges are reported beyond so many times the largest in the training data, and never
#: below these sizes (eV/Å, e), which every structure off its minimum reaches.
_ABOVE_FORCE, _USUAL_FORCE = 2.0, 2.0
_ABOVE_CHARGE, _USUAL_CHARGE = 1.5, 0.2


class StrangeAtom(NamedTuple):
    """An atom in an environment that no atom of the training data has."""

    atom: int
    environment: str
    """See `phicalc.domain.environments`."""


class ModelDomain(NamedTuple):
    """What the training data of a model covered, ready for checks; None where nobody knows."""

    model: str
    """Name of the model."""
    record: Domain
    """What its card says."""
    charge_range: tuple[float, float] | None = None
    """Smallest and largest total charge in e."""
    stress: bool | None = None
    """Whether the stress was trained."""
    nearest: Float64[Tensor, "119 119"] | None = None
    """Smallest distance in Å of each pair of elements; 0 where there was no pair."""
    environments: frozenset[str] | None = None
    """Atoms with those that they were bonded to, see `phicalc.domain.environments`."""

    def limits(self) -> Float64[Tensor, "119 119"]:
        """Return the distance in Å of each pair of elements below which atoms are too close."""
        return PLAUSIBLE if self.nearest is None else self.nearest * _BELOW_NEAREST

    def largest_results(self) -> LargestResults:
        """Return the sizes of results beyond which the training data give no reason for them."""
        force, charge = self.record.largest_force, self.record.largest_charge
        return LargestResults(
            self.model,
            None if force is None else max(_ABOVE_FORCE * force, _USUAL_FORCE),
            None if charge is None else _ABOVE_CHARGE * charge + _USUAL_CHARGE,
        )


def domain_of(card: ModelCard) -> ModelDomain:
    """Return what a card says about the training data.

    In cards without a record of it, stress was trained if the loss of the card's training gave it a
    weight.
    """
    record = card.domain
    loss = card.training.get("config", {}).get("loss", {})
    weight = loss.get("stress", {}).get("weight")
    weighted = None if weight is None else weight > 0
    return ModelDomain(
        model=card.name,
        record=record,
        charge_range=card.charge_range,
        stress=weighted if record.stress is None else record.stress,
        nearest=_nearest(record.nearest_distances or {}),
        environments=None if record.environments is None else frozenset(record.environments),
    )


def _nearest(distances: Mapping[str, float]) -> Float64[Tensor, "119 119"] | None:
    """Return the table of smallest distances in Å; None if there are none."""
    if not distances:
        return None
    table = torch.zeros(119, 119, dtype=torch.float64)
    for pair, distance in distances.items():
        first, second = (atomic_numbers[symbol] for symbol in symbols_of_pair(pair))
        table[first, second] = table[second, first] = distance
    return torch.maximum(table, PLAUSIBLE / _BELOW_NEAREST)


def structure_concerns(
    atoms: Atoms,
    conditions: Conditions,
    domain: ModelDomain | None,
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
    if domain.record.periodic is False and atoms.pbc.any():
        yield Concern(
            "periodic",
            f"periodic structure (pbc={atoms.pbc.tolist()}): model {domain.model!r} was trained on "
            "isolated structures alone; treat the results as an extrapolation",
        )
    yield from _density_concerns(atoms, domain)
    if stress and domain.stress is False:
        yield Concern(
            "stress",
            f"stress: model {domain.model!r} was not trained on stress; do not rely on it to relax "
            "cells or for dynamics at constant pressure",
        )


def _charge_concerns(atoms: Atoms, charge: float, domain: ModelDomain) -> Iterator[Concern]:
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
    closed = domain.record.closed_shell
    unknown = closed is None and not atoms.pbc.any()
    if odd and (closed or unknown):
        data = "hold closed shells alone" if closed else "may hold no radicals"
        yield Concern(
            "radical",
            f"{atoms.get_chemical_formula()} with total charge {charge:g} e has an odd number of "
            f"electrons ({electrons:.0f}), and the training data of model {domain.model!r} {data}; "
            "check the total charge, and look for missing atoms",
        )


def _density_concerns(atoms: Atoms, domain: ModelDomain) -> Iterator[Concern]:
    """Yield a density far from those of the training data."""
    known = domain.record.densities
    if known is None or not atoms.pbc.all() or not len(atoms):
        return
    density = density_of(atoms)
    if not known[0] * (1 - _BEYOND_DENSITY) <= density <= known[1] * (1 + _BEYOND_DENSITY):
        yield Concern(
            "density",
            f"the density is {density:.2f} g/cm³: model {domain.model!r} was trained on densities "
            f"from {known[0]:.2f} to {known[1]:.2f} g/cm³; check the cell, or treat the results as "
            "an extrapolation",
        )


def environment_concerns(
    atoms: Atoms, strange: StrangeAtom | None, domain: ModelDomain | None
) -> Iterator[Concern]:
    """Yield the first atom that is bonded as none in the training data is."""
    if strange is None or domain is None:
        return
    atom, environment = strange
    yield Concern(
        "environment",
        f"atom {atom} ({atoms.symbols[atom]}) is bonded to {bonded_to(environment)}, as "
        f"no {atoms.symbols[atom]} in the training data of model {domain.model!r} is; treat the "
        "results as an extrapolation",
    )
