"""What a failed check asks for: samplers that find such frames, and the molecules it failed for."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.data import atomic_numbers, covalent_radii

from phicalc.certificate import Certificate, Outcome

#: Samplers that find what a check looks at.
ANSWERS = {
    "walls": ("pairs", "compressed"),
    "approaches": ("pairs", "compressed"),
    "compression": ("compressed", "pairs"),
    "bonds": ("dissociation",),
    "fragments": ("dissociation",),
    "torsions": ("torsions",),
    "conformers": ("torsions", "relax"),
    "frequencies": ("modes", "relax", "rattle"),
    "dimers": ("compressed", "dissociation"),
    "calibration": ("md", "rattle"),
    "drift": ("md",),
    "stability": ("md", "dissociation"),
    "liquid": ("md",),
    "density": ("md", "compressed"),
    "crystals": ("compressed", "rattle"),
    "surface": ("rattle", "md"),
    "elastic": ("rattle",),
    "phonons": ("rattle", "modes"),
}
_G2 = frozenset(g2.names)


class Wish(NamedTuple):
    """What a failed check asks for."""

    check: str
    samplers: tuple[str, ...]
    structures: tuple[Atoms, ...]
    """Molecules that it failed for; the structures of the run if it names none."""


def wishes_of(certificate: Certificate | None, elements: Sequence[str]) -> list[Wish]:
    """Return what the failed checks of a certificate ask for.

    Parameters
    ----------
    certificate
        That of the model; None before there is one.
    elements
        Symbols that the model knows.
    """
    if certificate is None:
        return []
    failed = [each for each in certificate.outcomes if each.status == "failed"]
    return [
        Wish(each.check, ANSWERS[each.check], tuple(_molecules(each, elements)))
        for each in failed
        if each.check in ANSWERS
    ]


def _molecules(outcome: Outcome, elements: Sequence[str]) -> list[Atoms]:
    """Return molecules of the G2 set that figures beyond their limits name."""
    failed = [figure.name for figure in outcome.figures if not figure.passed]
    words = {word for name in failed for word in re.findall(r"[\w-]+", name)}
    pairs = {pair for name in failed for pair in re.findall(r"\((\w+)–(\w+)\)", name)}
    found = [molecule(name) for name in sorted(words & _G2)]
    found += [_pair(*pair) for pair in sorted(pairs) if outcome.check == "walls"]
    # not single atoms or diatomics such as CH, whose ground states closed shells do not describe
    return [a for a in found if len(a) > 1 and set(a.symbols) <= set(elements) and _closed(a)]


def _pair(first: str, second: str) -> Atoms:
    """Return two atoms at the sum of their covalent radii."""
    distance = covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]]
    return Atoms([first, second], [[0, 0, 0], [0, 0, distance]])


def _closed(atoms: Atoms) -> bool:
    """Whether a molecule has a closed shell in the G2 set, or may have one."""
    return not (atoms.get_initial_magnetic_moments().any() or atoms.numbers.sum() % 2)
