"""Checks of a data set before anything is trained on it: what it holds and what looks wrong."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Float64

from phicalc.data.composition import fit_reference_energies
from phicalc.data.frames import LabelledAtoms, frame_digest
from phicalc.data.labels import LABELS
from phicalc.data.pairs import NEAR, Pair, fit_forces, fit_stress, similar_pairs
from phicalc.graph import edge_vectors, from_ase
from phicalc.units import (
    ATOMIC_FORCE,
    EV_PER_HARTREE,
    EV_PER_KCAL_PER_MOL,
    GPA_PER_EV_PER_CUBIC_ANGSTROM,
)

#: Outliers lie so many robust standard deviations (of normal data) from the median.
OUTLIER = 10.0

#: Atoms nearer than this fraction of the sum of their covalent radii overlap.
OVERLAP = 0.5

#: Largest difference between the sum of the charges and the total charge, in e.
CHARGE_SUM = 0.01

#: Largest net force per atom, as a fraction of the root mean square force.
NET_FORCE = 0.02

_NEIGHBORS = 2.6  # Å; half the sum of the largest covalent radii

_SURE = 0.15  # of the logarithm of a slope

#: What else the slope of energies over the work of forces can be, and what it means.
_FORCE_SLOPES = {
    -1.0: "forces have the other sign (gradients, not forces)",
    1 / EV_PER_HARTREE: "energies are in Hartree, forces in eV/Å",
    ATOMIC_FORCE: "forces are in Ha/Bohr, energies in eV",
    ATOMIC_FORCE / EV_PER_HARTREE: "energies are in Hartree and forces in Ha/Bohr",
    1 / EV_PER_KCAL_PER_MOL: "energies are in kcal/mol, forces in eV/Å",
    EV_PER_KCAL_PER_MOL: "forces are in kcal/(mol Å), energies in eV",
}
_STRESS_SLOPES = {
    -1.0: "stresses have the other sign (compression positive)",
    1 / GPA_PER_EV_PER_CUBIC_ANGSTROM: "stresses are in GPa",
    -1 / GPA_PER_EV_PER_CUBIC_ANGSTROM: "stresses are in GPa with the other sign",
    0.1 / GPA_PER_EV_PER_CUBIC_ANGSTROM: "stresses are in kbar",
    -0.1 / GPA_PER_EV_PER_CUBIC_ANGSTROM: "stresses are in kbar with the other sign",
}
#: Numbers of each frame, by name.
Series = dict[str, Float64[np.ndarray, " n_frames"]]


class Finding(NamedTuple):
    """Something worth knowing about a data set."""

    is_wrong: bool
    """False for what may well be meant so."""
    text: str
    origins: list[str]
    """Frames concerned, the worst first."""


class Inspection(NamedTuple):
    """What there is in a data set and what was found."""

    table: dict[str, str]
    """Rows for people: sizes, elements, label statistics."""
    findings: list[Finding]
    series: Series
    """For pictures; NaN where undefined."""
    pairs: list[Pair]

    @property
    def is_sound(self) -> bool:
        """Whether nothing looks wrong."""
        return not any(finding.is_wrong for finding in self.findings)


def inspect_frames(frames: Sequence[LabelledAtoms]) -> Inspection:
    """Check labelled structures.

    Looked for are exact and near duplicates (of the same atoms in the same order), energies that
    element energies do not explain, large forces, missing labels, charges that do not sum to the
    total charge, net forces, labels in other units or with other signs (by comparing differences
    of energies with the work of forces and stresses between near frames), overlapping atoms and
    mixed boundary conditions.

    Raises
    ------
    ValueError
        If there are no frames.
    """
    if not frames:
        raise ValueError("there are no frames to inspect")
    series = {
        "energy": _energy_residuals(frames),
        "force": _column(frames, lambda f: _largest(f.labels.forces.numpy())),
        "net_force": _column(frames, lambda f: _largest(f.labels.forces.numpy().sum(0)[None])),
        "charge_sum": _column(frames, lambda f: float(f.labels.charges.sum()) - f.total_charge),
        "closeness": _column(frames, _closeness),
    }
    pairs = similar_pairs(frames)
    checks = (
        _missing(frames),
        _duplicates(frames, pairs),
        _outliers(frames, series),
        _sums(frames, series),
        _overlaps(frames, series["closeness"]),
        _boundaries(frames),
        _units(frames, pairs),
    )
    return Inspection(_table(frames), [f for found in checks for f in found], series, pairs)


def _column(frames: Sequence[LabelledAtoms], measure: Any) -> Float64[np.ndarray, " n_frames"]:
    return np.array([measure(frame) for frame in frames], dtype=float)


def _largest(vectors: Float64[np.ndarray, "n 3"]) -> float:
    return float(np.linalg.norm(vectors, axis=1).max())


def _rms_force(frames: Sequence[LabelledAtoms]) -> float:
    """Root mean square of the components of the forces in eV/Å; 0 without forces."""
    forces = np.concatenate([frame.labels.forces.numpy().ravel() for frame in frames])
    return float(np.sqrt(np.nanmean(forces**2))) if np.isfinite(forces).any() else 0.0


def _energy_residuals(frames: Sequence[LabelledAtoms]) -> Float64[np.ndarray, " n_frames"]:
    """Energies per atom without fitted energies of the elements, in eV."""
    numbers = sorted({z for frame in frames for z in frame.atoms.numbers.tolist()})
    counts = np.array([[(f.atoms.numbers == z).sum() for z in numbers] for f in frames], float)
    energies = _column(frames, lambda f: float(f.labels.energy))
    there = np.isfinite(energies)
    residuals = np.full(len(frames), np.nan)
    if there.any():
        fit = fit_reference_energies(counts[there], energies[there])
        residuals[there] = (energies - counts @ fit.energies)[there] / counts.sum(1)[there]
    return residuals


def _closeness(frame: LabelledAtoms) -> float:
    """Smallest distance over the sum of covalent radii; at most 1 is looked for."""
    graph = from_ase(frame.atoms, _NEIGHBORS)
    if graph.n_edges == 0:
        return np.nan
    numbers = graph.atomic_numbers.numpy()[graph.edge_index.numpy()]
    lengths = edge_vectors(graph).norm(dim=1).numpy()
    return float((lengths / covalent_radii[numbers].sum(axis=0)).min())


def _has(frame: LabelledAtoms, name: str) -> bool:
    return bool(getattr(frame.labels, name).isfinite().all())


def _is_defined(frame: LabelledAtoms, name: str) -> bool:
    """Whether a label means something for a frame's boundary conditions."""
    pbc = frame.atoms.pbc
    return bool({"stress": pbc.all(), "dipole": not pbc.any()}.get(name, True))


def _missing(frames: Sequence[LabelledAtoms]) -> Iterator[Finding]:
    """Labels that a part of the frames has, and no energies or forces at all."""
    for name in LABELS:
        defined = [frame for frame in frames if _is_defined(frame, name)]
        absent = [frame.origin for frame in defined if not _has(frame, name)]
        wanted = name in ("energy", "forces")
        if absent and (wanted or len(absent) < len(defined)):
            hint = "" if wanted else f"; to train on it, set loss.{name}.required to false"
            text = f"{len(absent)} of {len(defined)} frames have no {name}{hint}"
            yield Finding(wanted, text, absent)


def _duplicates(frames: Sequence[LabelledAtoms], pairs: Sequence[Pair]) -> Iterator[Finding]:
    first_seen: dict[str, str] = {}
    copies = []
    for frame in frames:
        digest = frame_digest(frame)
        if digest in first_seen:
            copies.append(f"{frame.origin} (same as {first_seen[digest]})")
        first_seen.setdefault(digest, frame.origin)
    if copies:
        yield Finding(True, f"{len(copies)} frames repeat an earlier one exactly", copies)
    near = [
        f"{frames[pair.second].origin} (like {frames[pair.first].origin})"
        for pair in sorted(pairs, key=lambda pair: pair.distance)
        if 1e-9 < pair.distance < NEAR
    ]
    if near:
        text = f"{len(near)} frames differ from another by less than {NEAR} Å"
        yield Finding(False, text, near)


def _outliers(frames: Sequence[LabelledAtoms], series: Series) -> Iterator[Finding]:
    """Energies and forces far from those of the rest."""
    residuals = series["energy"]
    far = np.abs(_deviation(residuals, 0.005))
    far[[len(frame.atoms) == 1 for frame in frames]] = 0.0  # free atoms are not bound: no error
    yield from _worst(
        frames, far, OUTLIER,
        "frames have energies per atom far from what energies of the elements explain",
        lambda i: f"{residuals[i]:+.3f} eV/atom",
    )  # fmt: skip
    far = _deviation(np.log10(np.maximum(series["force"], 1e-6)), 0.1)
    yield from _worst(
        frames, far, OUTLIER, "frames have much larger forces than the others",
        lambda i: f"up to {series['force'][i]:.1f} eV/Å",
    )  # fmt: skip


def _deviation(
    values: Float64[np.ndarray, " n_frames"], smallest: float
) -> Float64[np.ndarray, " n_frames"]:
    """Deviations from the median over the robust standard deviation, of at least `smallest`."""
    if not np.isfinite(values).any():
        return np.zeros(len(values))
    deviations = values - np.nanmedian(values)
    return deviations / max(1.4826 * float(np.nanmedian(np.abs(deviations))), smallest)


def _worst(
    frames: Sequence[LabelledAtoms],
    values: Float64[np.ndarray, " n_frames"],
    limit: float,
    text: str,
    describe: Any,
) -> Iterator[Finding]:
    """Make a finding of the frames above a limit, if there are any."""
    order = np.argsort(np.nan_to_num(-values))
    chosen = [i for i in order if values[i] > limit]
    if chosen:
        origins = [f"{frames[i].origin} ({describe(i)})" for i in chosen]
        yield Finding(True, f"{len(chosen)} {text}", origins)


def _sums(frames: Sequence[LabelledAtoms], series: Series) -> Iterator[Finding]:
    """Charges and forces that do not add up."""
    charges = series["charge_sum"]
    yield from _worst(
        frames, np.abs(charges), CHARGE_SUM,
        f"frames have charges that do not sum to the total charge (by more than {CHARGE_SUM} e)",
        lambda i: f"{charges[i]:+.3f} e",
    )  # fmt: skip
    rms = _rms_force(frames)
    in_field = [any("field" in key for key in frame.atoms.info) for frame in frames]
    net = np.where(in_field, 0.0, series["net_force"] / [len(f.atoms) for f in frames])
    yield from _worst(
        frames, net, max(NET_FORCE * rms, 1e-3),
        "frames have forces that do not sum to zero",
        lambda i: f"{net[i]:.3f} eV/Å per atom",
    )  # fmt: skip


def _overlaps(
    frames: Sequence[LabelledAtoms], closeness: Float64[np.ndarray, " n_frames"]
) -> Iterator[Finding]:
    yield from _worst(
        frames, -closeness, -OVERLAP,
        f"frames have atoms nearer than {OVERLAP} of the sum of their covalent radii",
        lambda i: f"{closeness[i]:.2f}",
    )  # fmt: skip


def _boundaries(frames: Sequence[LabelledAtoms]) -> Iterator[Finding]:
    """Periodic and open structures in one set: harmless, unless they have the same atoms."""
    kinds: dict[str, set[tuple[bool, ...]]] = {}
    for frame in frames:
        formula = frame.atoms.get_chemical_formula()
        kinds.setdefault(formula, set()).add(tuple(frame.atoms.pbc.tolist()))
    if len(set().union(*kinds.values())) == 1:
        return
    mixed = [formula for formula, found in kinds.items() if len(found) > 1]
    text = "frames with different periodic directions are mixed"
    if mixed:
        text += ", even of the same formula: a sign of cells that were lost on the way"
    yield Finding(bool(mixed), text, mixed)


def _units(frames: Sequence[LabelledAtoms], pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Units and signs, by whether labels fit together."""
    for fit, slopes, what in (
        (fit_forces(pairs), _FORCE_SLOPES, "forces"),
        (fit_stress(pairs), _STRESS_SLOPES, "stresses"),
    ):
        if fit is None or abs(fit.correlation) < 0.8 or 0.65 < fit.slope < 1.5:
            continue
        text_of = {
            abs(np.log(fit.slope / slope)): text
            for slope, text in slopes.items()
            if slope * fit.slope > 0
        }
        nearest = min(text_of, default=np.inf)
        guess = "a unit or a sign is wrong, or labels of two methods are mixed"
        if nearest < _SURE:
            guess = text_of[nearest]
        text = (
            f"between near frames energies change by {fit.slope:.3g} times what the {what} expect "
            f"({fit.n_pairs} pairs): probably {guess}"
        )
        yield Finding(True, text, [])
    rms = _rms_force(frames)
    if rms > 12:
        text = f"forces of {rms:.0f} eV/Å (root mean square) are large: perhaps kcal/(mol Å)?"
        yield Finding(True, text, [])
    stress = np.concatenate([frame.labels.stress.numpy().ravel() for frame in frames])
    if np.isfinite(stress).any() and float(np.nanmedian(np.abs(stress[stress != 0]))) > 1:
        yield Finding(True, "stresses of more than 1 eV/Å³ (160 GPa): perhaps in GPa?", [])


def _table(frames: Sequence[LabelledAtoms]) -> dict[str, str]:
    """Sizes, elements and statistics of the labels, in words."""
    sizes = [len(frame.atoms) for frame in frames]
    elements = Counter(z for frame in frames for z in set(frame.atoms.numbers.tolist()))
    charges = Counter(frame.total_charge for frame in frames)
    periodic = Counter("".join("FT"[int(p)] for p in frame.atoms.pbc) for frame in frames)
    formulas = {frame.atoms.get_chemical_formula() for frame in frames}
    rows = {
        "frames": str(len(frames)),
        "atoms": f"{min(sizes)} to {max(sizes)}, mean {np.mean(sizes):.1f}",
        "formulas": str(len(formulas)),
        "elements": ", ".join(f"{chemical_symbols[z]} ({n})" for z, n in sorted(elements.items())),
        "total charges (e)": ", ".join(f"{q:+g} ({n})" for q, n in sorted(charges.items())),
        "periodic": ", ".join(f"{kind} ({n})" for kind, n in sorted(periodic.items())),
    }
    units = {
        "energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³", "charges": "e", "dipole": "e Å",
        "polarizability": "e Å²/V", "born_charges": "e",
    }  # fmt: skip
    for name, unit in units.items():
        chosen = [frame for frame in frames if _has(frame, name)]
        if not chosen:
            rows[f"{name} ({unit})"] = "none"
            continue
        parts = [getattr(frame.labels, name).numpy().ravel() for frame in chosen]
        if name == "energy":
            parts = [part / len(f.atoms) for part, f in zip(parts, chosen, strict=True)]
        values = np.concatenate(parts)
        rms = np.sqrt(np.mean(values**2))
        rows[f"{name} ({unit})"] = (
            f"{len(chosen)} frames; mean {values.mean():.4g}, rms {rms:.4g}, "
            f"{values.min():.4g} to {values.max():.4g}"
        )
    return rows
