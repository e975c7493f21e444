"""Labeled structures: labels taken out of ASE's structures and checked."""

import hashlib
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Float64
from torch import Tensor

from phicalc.data.config import KeysConfig
from phicalc.data.labels import LABELS
from phicalc.data.names import find_value, present_names, suggestion
from phicalc.structures import center_of_mass

#: What calculators read from ``info``, and potentials are not trained with.
ENVIRONMENT_KEYS = (
    "external_field", "electrode_potential", "fragment_charges", "fragment_potentials",
)  # fmt: skip


class Labels(NamedTuple):
    """Reference values of one or several structures; NaN where a structure has no such label."""

    energy: Float64[Tensor, " n_structures"]
    """Total energies in eV."""
    forces: Float64[Tensor, "n_atoms 3"]
    """Forces in eV/Å."""
    stress: Float64[Tensor, "n_structures 3 3"]
    """Stresses in eV/Å³, tension positive."""
    charges: Float64[Tensor, " n_atoms"]
    """Atomic charges in e."""
    dipole: Float64[Tensor, "n_structures 3"]
    """Dipoles in e·Å (for charged structures about the centre of mass)."""
    polarizability: Float64[Tensor, "n_structures 3 3"]
    """Polarizabilities ``∂μ_α/∂E_β`` in e Å²/V."""
    born_charges: Float64[Tensor, "n_atoms 3 3"]
    """Born effective charges ``∂μ_α/∂r_iβ`` in e, indices i, α, β."""

    def to(self, device: torch.device | str) -> "Labels":
        """Return the labels on `device`."""
        return Labels(*(field.to(device) for field in self))


class LabelledAtoms(NamedTuple):
    """One structure with its labels and where it came from."""

    atoms: Atoms
    labels: Labels
    total_charge: float
    """In e."""
    origin: str
    """``file, frame i`` for messages."""


def label_atoms(
    atoms: Atoms, keys: KeysConfig, required: Sequence[str] = (), origin: str = "structure"
) -> LabelledAtoms:
    """Return one structure with its labels.

    A virial under ``keys.virial`` becomes a stress where there is no stress.

    Raises
    ------
    ValueError
        For a structure without atoms, a missing required label, labels that are no finite numbers
        or have the wrong shape, and external conditions; the message names `origin` and key.
    """
    n_atoms = len(atoms)
    if not n_atoms:
        raise ValueError(f"{origin} has no atoms; remove this frame")
    shapes = {
        "energy": (1,),
        "forces": (n_atoms, 3),
        "stress": (1, 3, 3),
        "charges": (n_atoms,),
        "dipole": (1, 3),
        "polarizability": (1, 3, 3),
        "born_charges": (n_atoms, 3, 3),
    }
    values = {}
    for name in LABELS:
        key = getattr(keys, name)
        values[name] = _as_label(find_value(atoms, key), shapes[name], name, key, origin)
    if bool(values["stress"].isnan().all()):
        values["stress"] = _stress_from_virial(atoms, keys.virial, origin)
    values["born_charges"] = values["born_charges"].transpose(1, 2)
    total = _total_charge(atoms, keys.total_charge, origin)
    _refuse_environment(atoms, origin)
    if keys.dipole_origin == "coordinates":
        values["dipole"] = values["dipole"] - total * torch.from_numpy(center_of_mass(atoms))[None]
    frame = LabelledAtoms(atoms, Labels(**values), total, origin)
    require_labels([frame], keys, required)
    return frame


def require_labels(
    frames: Sequence[LabelledAtoms], keys: KeysConfig, required: Sequence[str]
) -> None:
    """Raise unless every frame has the labels that are required.

    Raises
    ------
    ValueError
        Naming the first frame without one of them, its key, and what the frame has.
    """
    for frame in frames:
        for name in required:
            if bool(getattr(frame.labels, name).isnan().all()):
                raise ValueError(_missing(frame.atoms, name, getattr(keys, name), frame.origin))


def _missing(atoms: Atoms, name: str, key: str, origin: str) -> str:
    """Say that a required label is not there, and what is."""
    found = ", ".join(present_names(atoms)) or "no labels at all"
    return (
        f"{origin}: no {name} under the key {key!r}, but the loss gives it a weight. Found: "
        f"{found}.{suggestion(atoms, name)} Set data.keys.{name} to the right key, "
        f"loss.{name}.weight to 0, or loss.{name}.required to false if only some frames have it"
    )


def _stress_from_virial(atoms: Atoms, key: str, origin: str) -> Float64[Tensor, "1 3 3"]:
    """Stress ``σ = −W/V`` in eV/Å³ from a virial W in eV; NaN without a virial or a volume."""
    virial = _as_label(find_value(atoms, key), (1, 3, 3), "virial", key, origin)
    if atoms.cell.rank < 3:
        return torch.full_like(virial, float("nan"))
    return -virial / atoms.cell.volume


def _total_charge(atoms: Atoms, key: str, origin: str) -> float:
    """Total charge of a structure in e; 0 where there is none."""
    charge = find_value(atoms, key)
    if charge is None:
        return 0.0
    array = np.asarray(charge)
    if array.size != 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError(
            f"{origin}: the total charge, under the key {key!r}, must be one finite number in e, "
            f"got {charge!r}"
        )
    return float(array.item())


def _refuse_environment(atoms: Atoms, origin: str) -> None:
    """Raise for labels that are not those of the structure alone."""
    for name in ENVIRONMENT_KEYS:
        value = atoms.info.get(name)
        if value is not None and np.any(value):
            raise ValueError(
                f"{origin}: info[{name!r}] is {value}, but potentials are trained and evaluated "
                "without fields, fragments and electrodes; leave this frame out, or remove the "
                "entry if the labels do not depend on it"
            )


def _as_label(
    value: object | None, shape: tuple[int, ...], name: str, key: str, origin: str
) -> Float64[Tensor, "..."]:
    """Turn a label into a float64 tensor of `shape`, NaN where it is missing."""
    if value is None:
        return torch.full(shape, float("nan"), dtype=torch.float64)
    array = _numbers(value, f"{origin}: {name}", key)
    if shape == (1, 3, 3) and array.size == 6:
        array = voigt_6_to_full_3x3_stress(array.reshape(6))
    if array.size != np.prod(shape):
        raise ValueError(
            f"{origin}: {name} must have the shape {shape}, got {array.shape} under the key {key!r}"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"{origin}: {name} holds NaN or infinite values under the key {key!r}; remove or "
            "repair this frame"
        )
    return torch.tensor(array.reshape(shape), dtype=torch.float64)


def _numbers(value: object, what: str, key: str) -> Float64[np.ndarray, "..."]:
    """Turn a label into an array, refusing truth values and text."""
    try:
        array = np.asarray(value)
    except ValueError:  # nested lists of unequal lengths
        array = np.array(None)
    if array.dtype.kind in "iuf":
        return array.astype(np.float64)
    shown = " ".join(repr(value).split())
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    fortran = bool(re.search(r"\d[dD][+-]?\d", shown))
    raise ValueError(
        f"{what} must be numbers, got {shown} under the key {key!r}"
        f"{'; write exponents with E, not with D' if fortran else ''}. Correct the file, or set "
        "another key"
    )


def warn_of_duplicates(frames: Sequence[LabelledAtoms]) -> int:
    """Warn when structures occur more than once (a copy in the validation set flatters errors).

    Returns
    -------
    int
        Number of structures that repeat an earlier one exactly.
    """
    first_seen: dict[str, str] = {}
    repeats = []
    for frame in frames:
        digest = frame_digest(frame)
        if digest in first_seen:
            repeats.append((frame.origin, first_seen[digest]))
        first_seen.setdefault(digest, frame.origin)
    if repeats:
        again, before = repeats[0]
        warnings.warn(
            f"{len(repeats)} of {len(frames)} structures repeat an earlier one exactly, the first "
            f"of them {again} (same as {before}). Copies in both training and validation data "
            "make the validation errors too small",
            stacklevel=2,
        )
    return len(repeats)


def frame_digest(frame: LabelledAtoms) -> str:
    """SHA-256 of a structure with its total charge: the same for exact copies."""
    atoms = frame.atoms
    parts = (atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc, frame.total_charge)
    return hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in parts)).hexdigest()
