"""Labels that an evaluation leaves out, and why: no table says by itself what it lacks."""

from collections.abc import Sequence

from jaxtyping import Float64
from torch import Tensor

from phicalc.data.labels import LABELS
from phicalc.potential import Potential
from phicalc.response import has_born_charges, has_polarizability
from phicalc.training.dataset import Sample

#: Why a label is not compared.
_REASONS = {
    "stress": "structures have one if they are periodic in three directions",
    "charges": "this model has none",
    "dipole": "structures have one without periodic axes, models with charges",
    "polarizability": "this model defines none there",
    "born_charges": "this model defines none there",
}
_OF_A_COMMITTEE = "they are compared for single models, not for committees"


def is_labelled(label: Float64[Tensor, "..."]) -> bool:
    """Whether a structure has a label."""
    return label.numel() > 0 and bool(label.isfinite().all())


def is_compared(name: str, sample: Sample, members: Sequence[Potential]) -> bool:
    """Whether potentials predict what a label of a structure can be compared with.

    Parameters
    ----------
    name
        One of `phicalc.data.labels.LABELS`.
    sample
        One structure.
    members
        A potential, or those of a committee.
    """
    pbc = sample.graph.pbc
    if name == "stress":
        return bool(pbc.all())
    if name in ("charges", "dipole"):
        charged = all(potential.head.has_charges for potential in members)
        return charged and not (name == "dipole" and bool(pbc.any()))
    if name == "polarizability":
        return len(members) == 1 and has_polarizability(members[0], sample.graph)
    if name == "born_charges":
        return len(members) == 1 and has_born_charges(members[0], sample.graph)
    return True


def omissions(members: Sequence[Potential], samples: Sequence[Sample]) -> list[str]:
    """Return a sentence for each kind of label that is not compared.

    Parameters
    ----------
    members
        A potential, or those of a committee.
    samples
        The structures.
    """
    notes = []
    for name in LABELS:
        labelled = [each for each in samples if is_labelled(getattr(each.labels, name))]
        without = sum(not is_compared(name, sample, members) for sample in labelled)
        if without:
            together = len(members) > 1 and name in ("polarizability", "born_charges")
            reason = _OF_A_COMMITTEE if together else _REASONS[name]
            spoken = name.replace("_", " ")
            notes.append(f"{spoken}: {without} of {len(labelled)} labels left out: {reason}")
    return notes
