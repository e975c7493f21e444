"""Reading labelled structures from extended XYZ files."""

import gzip
import hashlib
import io
import os
import warnings
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Float64
from torch import Tensor

from phicalc.data.config import KeysConfig
from phicalc.data.labels import LABELS
from phicalc.structures import center_of_mass

#: Folder searched last for data files that are given by a relative name.
DATA_VARIABLE = "PHICALC_DATA"
#: What calculators read from ``info``, and potentials are not trained with.
ENVIRONMENT_KEYS = (
    "external_field", "electrode_potential", "fragment_charges", "fragment_potentials",
)  # fmt: skip
#: Names under which files of others keep the total charge.
CHARGE_NAMES = ("charge", "total_charge", "tot_charge", "net_charge", "total_q")


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

    def to(self, device: torch.device | str) -> "Labels":
        """Return the labels on `device`."""
        return Labels(*(field.to(device) for field in self))


class LabelledAtoms(NamedTuple):
    """One structure with its labels and where it came from."""

    atoms: Atoms
    labels: Labels
    total_charge: float
    origin: str
    """``file, frame i`` for messages."""


def find_data_file(name: str | Path, base: Path | None = None) -> Path:
    """Find a data file: as given, beside `base`, or in the folder of ``PHICALC_DATA``.

    Relative names are looked for, in this order, in the folder `base` (that of the configuration
    file), in the current folder, and in the folder that the environment variable
    ``PHICALC_DATA`` names.

    Raises
    ------
    FileNotFoundError
        Naming every place that was tried.
    """
    folders = [base or Path(), Path()]
    if os.environ.get(DATA_VARIABLE):
        folders.append(Path(os.environ[DATA_VARIABLE]))
    places = list(dict.fromkeys(folder / Path(name).expanduser() for folder in folders))
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"data file {str(name)!r} was not found; tried {', '.join(str(p) for p in places)}. Give "
        f"a path, or set the environment variable {DATA_VARIABLE} to the folder with the data"
    )


def read_frames(
    path: str | Path, keys: KeysConfig, required: Iterable[str] = ()
) -> list[LabelledAtoms]:
    """Read every structure of an extended XYZ file (plain or ``.gz``) with its labels.

    Parameters
    ----------
    path
        The file.
    keys
        Under which names the labels are kept.
    required
        Labels (of `LABELS`) that every structure must have.

    Raises
    ------
    ValueError
        For a file without structures, a missing required label, a label that is not finite or has
        the wrong shape, an external field; the message names file, frame and key.
    """
    path = Path(path)
    try:
        # Unpacked as a whole: ASE steps back and forth, which inside a .gz file takes minutes.
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        images = ase.io.read(io.StringIO(text), index=":", format="extxyz")
    except (KeyError, IndexError, ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} could not be read as extended XYZ: {error}") from error
    if not images:
        raise ValueError(f"{path} holds no structures")
    _warn_of_charges(images, keys.total_charge, path)  # type: ignore[arg-type]  # index=":": a list
    required = tuple(required)
    origins = (f"{path.name}, frame {i}" for i in range(len(images)))
    return [label_atoms(a, keys, required, origin) for a, origin in zip(images, origins)]  # noqa: B905


def label_atoms(
    atoms: Atoms, keys: KeysConfig, required: Sequence[str] = (), origin: str = "structure"
) -> LabelledAtoms:
    """Take the labels out of one ASE structure (see `read_frames`)."""
    n_atoms = len(atoms)
    shapes = {
        "energy": (1,),
        "forces": (n_atoms, 3),
        "stress": (1, 3, 3),
        "charges": (n_atoms,),
        "dipole": (1, 3),
    }
    values = {}
    for name in LABELS:
        value = _find(atoms, getattr(keys, name))
        if value is None and name in required:
            raise ValueError(
                f"{origin}: no {name} under the key {getattr(keys, name)!r}, but the loss gives "
                f"it a weight. Found: {', '.join(_present(atoms)) or 'no labels at all'}. Set "
                f"loss.{name}.weight to 0, loss.{name}.required to false if only some frames have "
                f"it, or data.keys.{name} to the right key"
            )
        values[name] = _as_label(value, shapes[name], f"{origin}: {name}")
    total = _total_charge(atoms, keys.total_charge, origin)
    _refuse_environment(atoms, origin)
    if keys.dipole_origin == "coordinates":
        values["dipole"] = values["dipole"] - total * torch.from_numpy(center_of_mass(atoms))[None]
    return LabelledAtoms(atoms, Labels(**values), total, origin)


def _total_charge(atoms: Atoms, key: str, origin: str) -> float:
    """Total charge of a structure in e; 0 where there is none."""
    charge = _find(atoms, key)
    try:
        total = 0.0 if charge is None else float(charge)  # type: ignore[arg-type]  # tried
    except (TypeError, ValueError):
        total = float("nan")
    if not np.isfinite(total):
        raise ValueError(
            f"{origin}: the total charge, under the key {key!r}, must be one finite number in e, "
            f"got {charge!r}"
        )
    return total


def _warn_of_charges(images: Sequence[Atoms], key: str, path: Path) -> None:
    """Warn if no structure has a total charge, but something that could be one."""
    if any(_find(atoms, key) is not None for atoms in images):
        return
    found = {name for atoms in images for name in CHARGE_NAMES if np.any(atoms.info.get(name, 0))}
    if found:
        warnings.warn(
            f"{path}: no structure has a total charge under the key {key!r}, so all count as "
            f"neutral; but there is {', '.join(sorted(found))}. Is data.keys.total_charge meant?",
            stacklevel=3,
        )


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


def born_charges_of(frame: LabelledAtoms, keys: KeysConfig) -> Float64[Tensor, "n_atoms 3 3"]:
    """Born effective charges ``∂μ_α/∂r_iβ`` of a structure in e, indices i, α, β; NaN without."""
    what = f"{frame.origin}: Born charges"
    value = _find(frame.atoms, keys.born_charges)
    return _as_label(value, (len(frame.atoms), 3, 3), what).transpose(1, 2)


def _present(atoms: Atoms) -> list[str]:
    """Names of everything that could be a label of a structure."""
    results = [] if atoms.calc is None else list(atoms.calc.results)
    arrays = [key for key in atoms.arrays if key not in ("numbers", "positions")]
    return sorted({*results, *atoms.info, *arrays})


def _find(atoms: Atoms, key: str) -> object | None:
    """Look a key up in the attached results, then in ``info``, then in ``arrays``."""
    results = {} if atoms.calc is None else atoms.calc.results
    for place in (results, atoms.info, atoms.arrays):
        if place.get(key) is not None:
            return place[key]
    return None


def _as_label(value: object | None, shape: tuple[int, ...], what: str) -> Tensor:
    """Turn a label into a float64 tensor of `shape`, NaN where it is missing."""
    if value is None:
        return torch.full(shape, float("nan"), dtype=torch.float64)
    array = np.asarray(value, dtype=np.float64)
    if shape == (1, 3, 3) and array.size == 6:
        array = voigt_6_to_full_3x3_stress(array.reshape(6))
    if array.size != np.prod(shape):
        raise ValueError(f"{what} must have the shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} holds NaN or infinite values; remove or repair this frame")
    return torch.tensor(array.reshape(shape), dtype=torch.float64)


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


def file_digest(path: Path) -> str:
    """SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
