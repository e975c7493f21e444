"""Structures as files can hold them: entries that would not come back are renamed or dropped.

ASE's ``info`` and ``arrays`` take any name and any value; file formats do not. Some entries end the
writer with an error, others make a file that cannot be read, or come back as something else. No
list of such cases is complete, so the entries are written and read back.
"""

import io
import json
import re
import warnings
from collections.abc import Hashable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.spacegroup import Spacegroup
from jaxtyping import Shaped

from phicalc.structures.comparison import differences, entries_of, plain

#: Start of the new name of an entry whose own name means something else in files.
_PREFIX = "input_"
#: How ASE marks JSON in the comment line of extended XYZ.
_JSON = "_JSON "


class _Form(NamedTuple):
    """How an entry is written."""

    name: str
    encoded: bool = False
    """Whether a value of ``info`` becomes JSON, and an array of objects one of a plain type."""


class Translation(NamedTuple):
    """Names and forms in which a file format holds the entries of a structure."""

    results: dict[Hashable, _Form]
    """By the name of a calculator's result."""
    info: dict[Hashable, _Form]
    """By the key in ``info``; keys that are missing are dropped."""
    arrays: dict[Hashable, _Form]
    """By the name in ``arrays``, elements and positions apart."""
    changes: tuple[str, ...] = ()
    """A phrase for each entry that is dropped or renamed."""

    def apply(self, atoms: Atoms) -> Atoms:
        """Return a copy of `atoms`, with its results, that holds portable entries only."""
        copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        copy.set_constraint([item.copy() for item in atoms.constraints])
        for key, form in self.info.items():
            if key in atoms.info:
                copy.info[form.name] = _info_value(atoms.info[key], form.encoded)
        for key, form in self.arrays.items():
            if key in atoms.arrays:
                copy.arrays[form.name] = _array_value(atoms.arrays[key], form.encoded)
        results = entries_of(atoms, "results")
        if kept := {str(name): results[name] for name in self.results if name in results}:
            copy.calc = SinglePointCalculator(copy, **kept)  # last: it remembers the atoms
        return copy

    def lost(self, atoms: Atoms, found: Atoms) -> list[str]:
        """Return the names of what `found`, read from a file, has not of what `apply` gave it."""
        expected = self.apply(atoms)
        for key, form in self.info.items():  # the reader has decoded what was encoded
            if key in atoms.info:
                expected.info[form.name] = atoms.info[key]
        return differences(expected, found)


class Portable(NamedTuple):
    """A structure that comes back from its file as it is."""

    atoms: Atoms
    """Copy of the structure, with its results."""
    changes: tuple[str, ...]
    """A phrase for each entry that was dropped or renamed, such as ``info['energy'] is written as
    info['input_energy']``."""


def portable(atoms: Atoms, file_format: str = "extxyz") -> Portable:
    """Return a copy of a structure that survives being written and read, and what it lacks.

    Entries of ``info`` and ``arrays`` whose name has another meaning in the file, such as
    ``energy``, are renamed (``input_energy``). Texts with line breaks or quotes and nested values
    of ``info`` are written as JSON, which ASE reads back. Entries that the format cannot hold in
    any form, such as names of residues with blanks, are dropped. Nothing is computed.

    Parameters
    ----------
    atoms
        The structure, with or without results.
    file_format
        ``"extxyz"`` or ``"traj"``.

    Raises
    ------
    ValueError
        If not even elements, positions and cell can be written.
    """
    translation = translate(atoms, file_format)
    return Portable(translation.apply(atoms), translation.changes)


def warn_of_changes(changes: tuple[str, ...], where: str | Path) -> None:
    """Warn, in one sentence, of all entries that a file will lack or hold under other names.

    Parameters
    ----------
    changes
        As of `Portable` or `Translation`.
    where
        The file or folder, for the message.
    """
    if changes:
        warnings.warn(
            f"{where} will not hold every entry of the structure as it is: {'; '.join(changes)}",
            stacklevel=3,
        )


def translate(atoms: Atoms, file_format: str = "extxyz") -> Translation:
    """Return the forms in which the entries of a structure can be written (see `portable`).

    They hold for other structures with the same entries, such as later frames of a run.

    Parameters
    ----------
    atoms
        The structure, with or without results.
    file_format
        ``"extxyz"`` or ``"traj"``.

    Raises
    ------
    ValueError
        If not even elements, positions and cell can be written.
    """
    results, info, arrays = (
        {key: _Form(str(key)) for key in entries_of(atoms, kind)}
        for kind in ("results", "info", "arrays")
    )
    texts = all(isinstance(key, str) for key in (*results, *info, *arrays))
    whole = Translation(results, info, arrays)
    if not texts or _failure(atoms, whole, file_format):
        whole = _translate_one_by_one(atoms, file_format)
    return whole._replace(changes=(*whole.changes, *_lost_constraints(atoms, file_format)))


def _lost_constraints(atoms: Atoms, file_format: str) -> tuple[str, ...]:
    """Name constraints that extended XYZ has no column for."""
    kept = (FixAtoms, FixCartesian) if file_format == "extxyz" else (object,)
    lost = {type(item).__name__ for item in atoms.constraints if not isinstance(item, kept)}
    return tuple(f"constraints {name} are not written" for name in sorted(lost))


def _translate_one_by_one(atoms: Atoms, file_format: str) -> Translation:
    """Add entries one after the other, each in the first form that survives."""
    translation, changes = Translation({}, {}, {}), []
    if failure := _failure(atoms, translation, file_format):
        raise ValueError(f"the structure cannot be written as {file_format}: {failure}")
    for kind in ("results", "info", "arrays"):
        for key in entries_of(atoms, kind):
            longer = _with_entry(translation, kind, key, atoms, file_format)
            if longer is None:
                changes.append(f"{kind}[{key!r}] is dropped ({file_format} cannot hold it)")
                continue
            translation = longer
            name = getattr(translation, kind)[key].name
            if name != key:
                changes.append(f"{kind}[{key!r}] is written as {kind}[{name!r}]")
    return translation._replace(changes=tuple(changes))


def _with_entry(
    translation: Translation, kind: str, key: Hashable, atoms: Atoms, file_format: str
) -> Translation | None:
    """Return the translation with one more entry; None if no form of it survives."""
    present: dict[Hashable, _Form] = getattr(translation, kind)
    entries = entries_of(atoms, kind)
    taken = {form.name for form in present.values()} | {*entries} - {key}
    own, value = [str(key)], entries[key]  # results have no other name
    single = kind == "results" or (kind == "arrays" and value.dtype.kind not in "Ou")
    for name in own if kind == "results" else _names(key, taken):
        for encoded in (False,) if single else (False, True):
            longer = _replaced(translation, kind, {**present, key: _Form(name, encoded)})
            if not _failure(atoms, longer, file_format):
                return longer
    return None


def _replaced(translation: Translation, kind: str, forms: dict[Hashable, _Form]) -> Translation:
    """Return a translation with other forms of one kind."""
    if kind == "results":
        return translation._replace(results=forms)
    if kind == "info":
        return translation._replace(info=forms)
    return translation._replace(arrays=forms)


def _names(key: Hashable, taken: set[Hashable]) -> Iterator[str]:
    """Yield names for an entry: its own, one of letters and digits, and a marked one."""
    if isinstance(key, str):
        yield key
    word = re.sub(r"\W+", "_", str(key)).strip("_") or "entry"
    if word != key and word not in taken:
        yield word
    marked = f"{_PREFIX}{word}"
    while marked in taken:
        marked += "_"
    yield marked


def _failure(atoms: Atoms, translation: Translation, file_format: str) -> str:
    """Return why these entries do not come back from a file; empty if they do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # ASE warns of what it leaves out
            found = _reread(translation.apply(atoms), file_format)
    except Exception as error:  # writers and readers raise whatever they stumble over
        return str(error) or type(error).__name__
    return ", ".join(translation.lost(atoms, found))


def _reread(atoms: Atoms, file_format: str) -> Atoms:
    """Write a structure, and read it."""
    if file_format == "extxyz":
        text = io.StringIO()
        ase.io.write(text, atoms, format=file_format)
        text.seek(0)
        return list(ase.io.iread(text, format=file_format))[0]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "structure"
        ase.io.write(path, atoms, format=file_format)
        return list(ase.io.iread(path, format=file_format))[0]


def _info_value(value: Any, encoded: bool) -> Any:
    """Return a value of ``info`` as it is written."""
    if not encoded:
        return value.symbol if isinstance(value, Spacegroup) else value
    # ASE's reader drops a backslash and takes the next character as it is; its writer adds none.
    return _JSON + json.dumps(plain(value)).replace("\\", "\\\\")


def _array_value(
    value: Shaped[np.ndarray, "n_atoms ..."], encoded: bool
) -> Shaped[np.ndarray, "n_atoms ..."]:
    """Return an array as it is written; numbers and texts in object arrays get a plain type."""
    if not encoded:
        return value.copy()
    typed = np.array(value.tolist())
    return typed.astype(np.int64) if typed.dtype.kind == "u" else typed
