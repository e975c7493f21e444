"""Fragments with fractions of a charge, and results that cannot be."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from jaxtyping import Float64, Int64

from phicalc.electrostatics.head import Head
from phicalc.inference.closeness import Closeness
from phicalc.inference.concerns import Concern, ImplausibleResultError

#: Charges beyond this (e), or beyond the charge of the nucleus, are not those of ions in matter.
PLAUSIBLE_CHARGE = 4.0
#: Largest force (eV/Å) without a warning: ten times the force that breaks a bond.
PLAUSIBLE_FORCE = 100.0

# Results beyond these limits are refused. No bond, ion or compressed cell comes close; only nuclei
# at about 0.2 Å, where electrons screen nothing any more, repel each other that much.
#: Largest force on an atom in eV/Å.
LARGEST_FORCE = 1e4
#: Largest charge of an atom in e.
LARGEST_CHARGE = 10.0
#: Largest energy per atom in eV, relative to the energies of the elements.
LARGEST_ENERGY = 1e4
#: Largest component of the stress in eV/Å³ (16 TPa).
LARGEST_STRESS = 1e2

#: Net charges of fragments may differ from integers by this much (e) before a warning.
_FRACTION = 0.02


class LargestResults(NamedTuple):
    """Sizes of results beyond which the training data of a model give no reason for them."""

    model: str
    force: float | None
    """On an atom, in eV/Å."""
    charge: float | None
    """Of an atom, in e."""


def result_concerns(
    results: Mapping[str, Any], atoms: Atoms, largest: LargestResults
) -> Iterator[Concern]:
    """Yield reasons to doubt results: forces and charges of sizes that do not occur.

    Parameters
    ----------
    results
        In ASE's names and units.
    atoms
        The structure.
    largest
        Sizes that the model has a reason for; physical ones are looked at, too.
    """
    if not len(atoms):
        return
    forces = np.linalg.norm(results["forces"], axis=1)
    atom = int(forces.argmax())
    limit = min(PLAUSIBLE_FORCE, largest.force or PLAUSIBLE_FORCE)
    if forces[atom] > limit:
        trained = f", far above all that model {largest.model!r} was trained on"
        yield Concern(
            "force",
            f"the force on atom {atom} ({atoms.symbols[atom]}) is {forces[atom]:.3g} eV/Å"
            f"{trained if limit < PLAUSIBLE_FORCE else ''}; relax the structure first, or check it "
            "for wrong distances",
        )
    if "charges" in results:
        yield from _charge_concerns(results["charges"], atoms, largest)


def _charge_concerns(
    charges: Float64[np.ndarray, " n_atoms"], atoms: Atoms, largest: LargestResults
) -> Iterator[Concern]:
    """Yield the charge (e) of an atom that is larger than it can be."""
    physical = np.minimum(atoms.numbers, PLAUSIBLE_CHARGE)
    atom = int((np.abs(charges) - physical).argmax())
    reason = "which no ion in matter has; the structure is unlike the training data"
    if abs(charges[atom]) <= physical[atom]:
        atom = int(np.abs(charges).argmax())
        if largest.charge is None or abs(charges[atom]) <= largest.charge:
            return
        reason = f"far above all that model {largest.model!r} was trained on"
    yield Concern(
        "atomic charge",
        f"the charge of atom {atom} ({atoms.symbols[atom]}) is {charges[atom]:+.2f} e, {reason}",
    )


def refuse_implausible(
    results: Mapping[str, Any],
    reference: float,
    atoms: Atoms,
    pair: Closeness | None,
    concerns: Sequence[Concern] = (),
) -> None:
    """Raise for results that are not finite or beyond every physical limit.

    Parameters
    ----------
    results
        In ASE's names and units.
    reference
        Energy of the elements in eV.
    atoms
        The structure.
    pair
        The atoms that are too close, if any are.
    concerns
        Reasons to doubt any result for this structure; the error gives the first of them.

    Raises
    ------
    ImplausibleResultError
        Naming the result, and what to check.
    """
    large = [each for each in _sizes(results, reference) if not each.size <= each.limit]
    bad = sorted(name for name, value in results.items() if not np.isfinite(value).all())
    if not bad and not large:
        return
    hint = "Check the positions, the cell and the unit of length (Å)"
    if pair is not None:
        hint = f"{pair.text(atoms)}: remove duplicates, or check the positions and the cell"
    formula = atoms.get_chemical_formula() if len(atoms) else "no atoms"
    uncovered = "if the structure is sound, the model does not cover it"
    if others := [concern.text for concern in concerns if concern.kind != "distance"]:
        uncovered = others[0]
    if bad:
        raise ImplausibleResultError(
            f"{', '.join(bad)} of {formula} not finite. {hint}; {uncovered}"
        )
    what, atom, size, limit, unit = large[0]
    if atom is not None:
        what = f"{what} on atom {atom} ({atoms.symbols[atom]})"
    raise ImplausibleResultError(
        f"{what} of {formula} is {size:.3g} {unit}, beyond {limit:g} {unit}, which no "
        f"structure has: no result is given. {hint}; {uncovered}"
    )


class _Size(NamedTuple):
    """The largest of the results of one kind, and what no structure exceeds."""

    what: str
    atom: int | None
    size: float
    limit: float
    unit: str


def _sizes(results: Mapping[str, Any], reference: float) -> Iterator[_Size]:
    """Yield the size of each kind of results that has a limit."""
    n_atoms = len(results["forces"])
    if not n_atoms:
        return
    energy = abs(results["energy"] - reference) / n_atoms
    what = "the energy per atom, relative to its elements,"
    yield _Size(what, None, energy, LARGEST_ENERGY, "eV")
    forces = np.linalg.norm(results["forces"], axis=1)
    atom = int(forces.argmax())
    yield _Size("the force", atom, float(forces[atom]), LARGEST_FORCE, "eV/Å")
    if "charges" in results:
        charges = np.abs(results["charges"])
        atom = int(charges.argmax())
        yield _Size("the charge", atom, float(charges[atom]), LARGEST_CHARGE, "e")
    if "stress" in results:
        stress = float(np.abs(results["stress"]).max())
        yield _Size("the stress", None, stress, LARGEST_STRESS, "eV/Å³")


def fragment_concerns(
    parts: Int64[np.ndarray, " n_atoms"],
    charges: Float64[np.ndarray, " n_atoms"],
    atoms: Atoms,
    head: Head,
) -> Iterator[Concern]:
    """Yield a fragment without connection to the rest that carries a fraction of a charge.

    Parameters
    ----------
    parts
        From `phicalc.graph.connected_parts`.
    charges
        In e.
    atoms
        The structure.
    head
        That of the model.
    """
    if (parts == parts[:1]).all():
        return
    _, member = np.unique(parts, return_inverse=True)
    net = np.bincount(member, charges)
    excess = np.abs(net - np.round(net))
    worst = int(excess.argmax())
    if excess[worst] > _FRACTION:
        chosen = np.flatnonzero(member == worst)
        reason = (
            "charge equilibration lets charge flow over any distance"
            if head.conducts
            else "charges are shifted together until they sum to the total charge"
        )
        yield Concern(
            "fragment charge",
            f"{atoms[chosen].get_chemical_formula()} (atoms {_range(chosen)}) is beyond the cutoff "
            f"of the rest and has a net charge of {net[worst]:+.3f} e: {reason}. Energies of far "
            "fragments do not add up; set the charges of fragments (see PhiCalculator)",
        )


def _range(numbers: Int64[np.ndarray, " n"]) -> str:
    """Write numbers of atoms shortly."""
    listed = ", ".join(map(str, numbers[:6].tolist()))
    return f"{listed}, …" if len(numbers) > 6 else listed
