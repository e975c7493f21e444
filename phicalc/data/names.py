"""Names under which files of others keep labels: to say which key may be meant."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
from ase import Atoms

from phicalc.data.config import KeysConfig
from phicalc.data.labels import LABELS

#: Words that names of a label end in, besides letters in front such as ``REF_`` or ``dft_``.
_WORDS = {
    "energy": ("energy", "energies", "etot", "e"),
    "forces": ("forces", "force", "f"),
    "stress": ("stress", "stresses", "virial", "virials"),
    "charges": ("charges", "q", "hirshfeld", "mulliken"),
    "dipole": ("dipole", "dipoles", "mu"),
    "polarizability": ("polarizability", "alpha"),
    "born_charges": ("bec", "becs", "borncharges", "zstar"),
    "total_charge": ("charge", "qtot", "totq", "totalcharge", "netcharge", "q"),
}
_SPOKEN = {"total_charge": "a total charge", "energy": "an energy", "dipole": "a dipole"}


def find_value(atoms: Atoms, key: str) -> object | None:
    """Look a key up in the attached results, then in ``info``, then in ``arrays``."""
    results = {} if atoms.calc is None else atoms.calc.results
    for place in (results, atoms.info, atoms.arrays):
        if place.get(key) is not None:
            return place[key]
    return None


def present_names(atoms: Atoms) -> list[str]:
    """Return the names of everything that could be a label of a structure."""
    results = [] if atoms.calc is None else list(atoms.calc.results)
    arrays = [key for key in atoms.arrays if key not in ("numbers", "positions")]
    return sorted({*results, *(str(key) for key in atoms.info), *arrays})


def near_names(atoms: Atoms, label: str) -> list[str]:
    """Return the names in a structure that could mean a label, such as ``REF_energy``."""
    return [
        name
        for name in present_names(atoms)
        if _sounds_like(name, label) and _has_size_of(find_value(atoms, name), label, len(atoms))
    ]


def _sounds_like(name: str, label: str) -> bool:
    """Whether the last word of a name is one of the label's, in any letter case."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    known = _WORDS[label]
    joined = "".join(words)
    long = tuple(word for word in known if len(word) > 2)
    return bool(words) and (words[-1] in known or joined in known or joined.endswith(long))


def _has_size_of(value: object, label: str, n_atoms: int) -> bool:
    """Whether a value holds as many numbers as a label does; a total charge may be garbled."""
    sizes: dict[str, tuple[int, ...]] = {
        "energy": (1,),
        "forces": (3 * n_atoms,),
        "stress": (6, 9),
        "charges": (n_atoms,),
        "dipole": (3,),
        "polarizability": (6, 9),
        "born_charges": (9 * n_atoms,),
    }
    return label not in sizes or np.asarray(value, dtype=object).size in sizes[label]


def suggestion(atoms: Atoms, label: str) -> str:
    """Return ``" Did you mean data.keys.energy: REF_energy?"``, or nothing."""
    found = near_names(atoms, label)
    if not found:
        return ""
    return f" Did you mean {' or '.join(_setting(label, name) for name in found)}?"


def _setting(label: str, name: str) -> str:
    """Return the setting that gives a label this name."""
    is_virial = label == "stress" and "virial" in name.lower()
    return f"data.keys.{'virial' if is_virial else label}: {name}"


def warn_of_names(images: Sequence[Atoms], keys: KeysConfig, path: Path) -> None:
    """Warn if no structure has a label, but something that could be one under another name."""
    for label in (*LABELS, "total_charge"):
        names = [getattr(keys, label)] + ([keys.virial] if label == "stress" else [])
        if any(find_value(atoms, name) is not None for atoms in images for name in names):
            continue
        used = {getattr(keys, other) for other in (*LABELS, "total_charge", "virial")}
        found = {name for atoms in images for name in near_names(atoms, label)} - used
        if label == "total_charge":  # without a charge all count as neutral: 0 says nothing else
            found = {
                name
                for name in found
                if any(np.any(np.asarray(find_value(a, name))) for a in images)
            }
        if found:
            warnings.warn(_warning(label, names[0], sorted(found), path), stacklevel=3)


def keys_without_values(images: Sequence[Atoms], keys: KeysConfig) -> list[str]:
    """Say which names of labels, other than the usual ones, no structure has anything under.

    Somebody gave these names; a total charge that is not found would be 0 for every structure.
    """
    usual, notes = KeysConfig(), []
    for field in fields(KeysConfig):
        key = getattr(keys, field.name)
        if field.name == "dipole_origin" or key == getattr(usual, field.name):
            continue
        if all(find_value(atoms, key) is None for atoms in images):
            neutral = ": all count as neutral" if field.name == "total_charge" else ""
            spoken = _SPOKEN.get(field.name, field.name.replace("_", " "))
            notes.append(f"no structure has {spoken} under the key {key!r}{neutral}")
    return notes


def warn_of_keys(images: Sequence[Atoms], keys: KeysConfig) -> None:
    """Warn of what `keys_without_values` says."""
    for note in keys_without_values(images, keys):
        warnings.warn(f"data.keys: {note}", stacklevel=3)


def _warning(label: str, key: str, found: Sequence[str], path: Path) -> str:
    spoken = _SPOKEN.get(label, label.replace("_", " "))
    neutral = ", so all count as neutral" if label == "total_charge" else ""
    settings = " or ".join(_setting(label, name) for name in found)
    return (
        f"{path}: no structure has {spoken} under the key {key!r}{neutral}; but there is "
        f"{', '.join(found)}. Did you mean {settings}?"
    )
