"""Candidates: frames that samplers find, by the model where they need forces; their origin."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from phicalc.improvement.config import ImprovementConfig
from phicalc.improvement.steering import Wish
from phicalc.labelling import CalculatorSpec, NothingLabelledError, TorsionSampler, label
from phicalc.labelling.samplers import Sampler
from phicalc.structures import find_molecules, read_structures, write_structures

#: Samplers that move atoms by forces. A new model has none: the others begin.
DRIVEN = ("md", "relax", "modes")
#: Samplers that take isolated structures alone.
ISOLATED = ("torsions", "dissociation")
#: No pair of atoms of a candidate is nearer than this part of the sum of its covalent radii.
NEAREST = 0.45
#: eV/Å: dynamics of the model end where a force is larger; the frames before are candidates.
LARGEST_FORCE = 100.0


def explore(
    config: ImprovementConfig,
    structures: Sequence[Atoms],
    model: Path | None,
    wishes: Sequence[Wish],
    folder: Path,
    number: int,
) -> Path:
    """Let all samplers look for candidates, and return the file with them.

    Frames say in ``info`` which sampler has found them from which structure (``parent``), with the
    notes of the sampler, and which failed check asked for them. What a run of the model did before
    it broke down is kept, and ``failures.json`` says how it did.

    Parameters
    ----------
    config
        The settings.
    structures
        Where to start.
    model
        Folder of the model; None before there is one.
    wishes
        What failed checks ask for.
    folder
        For the files.
    number
        Of the round.
    """
    path = folder / "candidates.extxyz"
    if path.exists():
        return path
    frames, failures = [], []
    for name in config.explore:
        sampler = config.sampler(name, number)
        parents = _parents(name, config, structures, wishes, model)
        if not parents or (model is None and _driven(name, sampler)):
            continue
        if _driven(name, sampler):
            found, lost = _by_model(parents, sampler, model, folder / f"{name}.extxyz", config)
            failures += [{"sampler": name, **each} for each in lost]
        else:
            found = _by_geometry(parents, sampler)
        frames += [_described(atoms, name, number, parents) for atoms in found if _apart(atoms)]
    (folder / "failures.json").write_text(json.dumps(failures, indent=1) + "\n", encoding="utf-8")
    write_atoms(path, frames)
    return path


def write_atoms(path: Path, frames: Sequence[Atoms]) -> None:
    """Write structures, whole or not at all; no structures make an empty file."""
    new = path.with_name(f"{path.name}.tmp")
    if frames:
        write_structures(new, frames)
    else:
        new.write_bytes(b"")
    new.replace(path)


def read_atoms(path: Path) -> list[Atoms]:
    """Return what `write_atoms` wrote."""
    return read_structures(path) if path.stat().st_size else []


def _driven(name: str, sampler: Sampler) -> bool:
    """Whether a sampler needs forces."""
    return name in DRIVEN or (isinstance(sampler, TorsionSampler) and sampler.relaxed)


def _parents(
    name: str,
    config: ImprovementConfig,
    structures: Sequence[Atoms],
    wishes: Sequence[Wish],
    model: Path | None,
) -> list[Atoms]:
    """Return the structures that a sampler starts from, each with its name and the failed check."""
    parents = []
    for number, atoms in enumerate(structures):
        factors = config.densities if name in DRIVEN and atoms.pbc.all() else (1.0,)
        for factor in factors:
            parents.append(_named(_scaled(atoms, factor), str(number), "", factor))
    for wish in wishes:
        if name in wish.samplers:
            for atoms in parents[: len(parents) * (not wish.structures)]:
                atoms.info.setdefault("failed_check", wish.check)
            parents += [_named(each, wish.check, wish.check) for each in wish.structures]
    return [a for a in parents if not (name in ISOLATED and a.pbc.any())]


def _named(atoms: Atoms, name: str, check: str, density: float = 1.0) -> Atoms:
    """Copy a structure with what its descendants say about it."""
    copy = atoms.copy()
    copy.calc = None
    copy.info = {k: v for k, v in atoms.info.items() if k in ("charge", "multiplicity")}
    copy.info["parent"] = f"{name} {atoms.get_chemical_formula()}"
    if check:
        copy.info["failed_check"] = check
    if density != 1.0:
        copy.info["density_factor"] = density
    for array in ("initial_magmoms", "initial_charges", "momenta"):
        copy.arrays.pop(array, None)
    return copy


def _scaled(atoms: Atoms, density: float) -> Atoms:
    """Copy a structure whose density is multiplied; finite molecules keep their shape."""
    copy = atoms.copy()
    if density == 1.0:
        return copy
    factor = density ** (-1 / 3)
    molecules = find_molecules(atoms)
    copy.set_cell(atoms.cell.array * factor, scale_atoms=True)
    whole = atoms.positions + molecules.images @ atoms.cell.array
    for number in np.flatnonzero(molecules.finite):
        members = molecules.labels == number
        center = whole[members].mean(axis=0)
        copy.positions[members] = whole[members] + (factor - 1) * center
    return copy


def _by_model(
    parents: Sequence[Atoms],
    sampler: Sampler,
    model: Path | None,
    output: Path,
    config: ImprovementConfig,
) -> tuple[list[Atoms], list[dict[str, Any]]]:
    """Return frames that the model leads to, and how it broke down."""
    spec = CalculatorSpec("phicalc:PhiCalculator", {"model": str(model), "compile": False}, "info")
    try:
        result = label(
            parents, spec, output, sampler, workers=config.workers, max_force=LARGEST_FORCE,
            progress=False,
        )  # fmt: skip
    except NothingLabelledError as error:
        return [], [{"error": str(error)}]
    return read_structures(result.path), result.failures


def _by_geometry(parents: Sequence[Atoms], sampler: Sampler) -> list[Atoms]:
    """Return frames of a sampler that moves atoms without forces."""
    found = []
    unused = CalculatorSpec()
    for chain in sampler.chains(parents):
        atoms = sampler.advance(chain, 0, parents[chain.structure], unused).copy()
        atoms.info |= {"structure": chain.structure, **chain.note}
        found.append(atoms)
    return found


def _described(atoms: Atoms, name: str, number: int, parents: Sequence[Atoms]) -> Atoms:
    """Copy a frame without results, with its origin in ``info``."""
    copy = atoms.copy()
    copy.calc = None
    copy.arrays = {key: atoms.arrays[key] for key in ("numbers", "positions")}
    notes = {k: v for k, v in atoms.info.items() if k not in ("structure", "sample")}
    origin = parents[int(atoms.info["structure"])].info
    copy.info = {**origin, **notes, "round": number, "found_by": name}
    return copy


def _apart(atoms: Atoms) -> bool:
    """Whether no two atoms are too near each other for any reference calculator."""
    radii = covalent_radii[atoms.numbers]
    distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
    np.fill_diagonal(distances, np.inf)
    return bool((distances >= NEAREST * (radii[:, None] + radii)).all())
