"""Choose candidates to label: the least known ones, each of which makes the next ones known."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from phicalc.improvement.config import ImprovementConfig
from phicalc.improvement.exploration import read_atoms, write_atoms
from phicalc.improvement.novelty import Described, describe, fingerprints

CHOSEN_FILE = "chosen.extxyz"
#: Sampler that has found a frame, and the failed check that asked for it; empty if none did.
Origin = tuple[str, str]
#: Parts of the frames that go to the candidates of each sampler; the others have 1.
PARTS = {"md": 4.0, "rattle": 2.0, "relax": 2.0}
#: Factor on that part where a failed check asks for the sampler.
ASKED_FOR = 3.0
#: Candidates of a sampler that are looked at, drawn at random: more bring nothing new.
MOST_CANDIDATES = 400


def select(
    config: ImprovementConfig,
    candidates: Path,
    model: Path | None,
    known: Sequence[Path],
    count: int,
    folder: Path,
    number: int,
) -> Path:
    """Choose frames to label, and return the file with them.

    ``info["chosen_by"]`` says why: ``uncertainty`` (with ``novelty``, the distance from the
    training data, beyond 1 outside), ``domain`` (an atom is bonded as none of the training data,
    ``environment``), ``distance`` (farthest from the others, without a model) or ``random``.
    ``info["split"]`` is ``valid`` for those kept for validation, else ``train``.

    Parameters
    ----------
    config
        The settings.
    candidates
        File of `phicalc.improvement.exploration.explore`.
    model
        Folder of the model; None before there is one.
    known
        Files with frames that are not chosen again: those of rounds before, and training data.
    count
        Largest number of frames.
    folder
        For the file.
    number
        Of the round.
    """
    path = folder / CHOSEN_FILE
    if path.exists():
        return path
    rng = np.random.default_rng((config.seed, number))
    frames = _new_ones(read_atoms(candidates), known)
    if config.select == "random":
        drawn = sorted(rng.permutation(len(frames))[:count].tolist())
        chosen = [_because(frames[k], chosen_by="random") for k in drawn]
    else:
        chosen = _by_sampler(frames, model, count, rng)
    _divide(chosen, config.valid_fraction, rng)
    write_atoms(path, chosen)
    return path


def _new_ones(frames: Sequence[Atoms], known: Sequence[Path]) -> list[Atoms]:
    """Return frames that are not in any of some files, each once."""
    seen = {_key(atoms) for path in known for atoms in read_atoms(path)}
    found = []
    for atoms in frames:
        if (key := _key(atoms)) not in seen:
            seen.add(key)
            found.append(atoms)
    return found


def _key(atoms: Atoms) -> tuple[object, ...]:
    """Return what is the same for copies of a structure, as files keep it."""
    rounded = np.round(atoms.positions, 4) + 0.0, np.round(atoms.cell.array, 4) + 0.0
    charge = float(atoms.info.get("charge", 0))
    return atoms.numbers.tobytes(), *(each.tobytes() for each in rounded), charge


def _because(atoms: Atoms, **reasons: str | float) -> Atoms:
    """Copy a frame with the reasons in ``info``."""
    copy = atoms.copy()
    copy.info |= reasons
    return copy


def _divide(frames: Sequence[Atoms], fraction: float, rng: np.random.Generator) -> None:
    """Keep a part of the frames for validation, drawn at random; one at least if there are two."""
    kept = max(round(fraction * len(frames)), len(frames) > 1)
    drawn = rng.permutation(len(frames))[:kept]
    for number, atoms in enumerate(frames):
        atoms.info["split"] = "valid" if number in drawn else "train"


def _by_sampler(
    frames: Sequence[Atoms], model: Path | None, count: int, rng: np.random.Generator
) -> list[Atoms]:
    """Choose from the candidates of each origin in turn, the first ones first."""
    if not frames:
        return []
    groups: dict[Origin, list[Atoms]] = {}
    for atoms in frames:
        origin = str(atoms.info["found_by"]), str(atoms.info.get("failed_check", ""))
        groups.setdefault(origin, []).append(atoms)
    for name, members in groups.items():
        drawn = sorted(rng.permutation(len(members))[:MOST_CANDIDATES].tolist())
        groups[name] = [members[k] for k in drawn]
    shares = _shares(groups, count)
    if model is None:
        return _farthest(groups, shares)
    return _least_known(groups, shares, model)


def _shares(groups: dict[Origin, list[Atoms]], count: int) -> dict[Origin, int]:
    """Divide the number of frames among origins; what one cannot fill goes to the others."""
    weights = {
        (name, check): PARTS.get(name, 1.0) * (ASKED_FOR if check else 1.0)
        for name, check in groups
    }
    shares: Counter[Origin] = Counter()
    for _ in range(min(count, sum(map(len, groups.values())))):
        open_ones = [name for name in groups if shares[name] < len(groups[name])]
        shares[min(open_ones, key=lambda name: (shares[name] + 0.5) / weights[name])] += 1
    return dict(shares)


def _farthest(groups: dict[Origin, list[Atoms]], shares: dict[Origin, int]) -> list[Atoms]:
    """Choose frames each of which is farthest from those chosen before."""
    names = list(groups)
    prints = fingerprints([atoms for name in names for atoms in groups[name]])
    rows = dict(zip(names, np.split(prints, np.cumsum([len(groups[n]) for n in names])[:-1]),
                    strict=True))  # fmt: skip
    taken: list[Float64[np.ndarray, " n"]] = [prints.mean(axis=0)]
    chosen = []
    for name in names:
        nearest = np.min([np.linalg.norm(rows[name] - t, axis=1) for t in taken], axis=0)
        for _ in range(shares.get(name, 0)):
            best = int(nearest.argmax())
            distance = round(float(nearest[best]), 4)
            chosen.append(_because(groups[name][best], chosen_by="distance", novelty=distance))
            taken.append(rows[name][best])
            nearest = np.minimum(nearest, np.linalg.norm(rows[name] - taken[-1], axis=1))
            nearest[best] = -np.inf
    return chosen


def _least_known(
    groups: dict[Origin, list[Atoms]], shares: dict[Origin, int], model: Path
) -> list[Atoms]:
    """Choose frames with the atom that is farthest from all known ones; new bonds add 1 to that.

    A chosen frame counts as part of the training data at once (its atoms enter the covariance), so
    that frames like it are known, too.
    """
    chosen: list[Atoms] = []
    known = _Known()
    for name, members in groups.items():
        left = list(zip(members, describe(members, model), strict=True))
        for _ in range(shares.get(name, 0)):
            ranks = known.ranks([described for _, described in left])
            atoms, described = left.pop(max(range(len(left)), key=ranks.__getitem__))
            chosen.append(_because(atoms, **_reason(described, known.bonds)))
            known.add(described)
    return chosen


def _reason(described: Described, known: frozenset[str]) -> dict[str, str | float]:
    """Return why a frame is chosen, for ``info``."""
    reasons: dict[str, str | float] = {"novelty": round(described.novelty, 4)}
    if new := sorted(described.strange - known):
        return {"chosen_by": "domain", "environment": new[0], **reasons}
    return {"chosen_by": "uncertainty", **reasons}


class _Known:
    """What is known: the covariance of the training data and chosen frames, and their bonds."""

    def __init__(self) -> None:
        self.bonds: frozenset[str] = frozenset()
        self._covariance: Float64[np.ndarray, "n n"] | None = None

    def add(self, described: Described) -> None:
        """Count a frame as known."""
        white = described.white
        before = np.eye(white.shape[1]) if self._covariance is None else self._covariance
        self._covariance = before + white.T @ white
        self.bonds |= described.strange

    def ranks(self, frames: Sequence[Described]) -> list[float]:
        """Return how far the outermost atom of each frame is from all; new bonds are outside."""
        white = np.concatenate([each.white for each in frames])
        if self._covariance is not None:
            white = white @ np.linalg.inv(np.linalg.cholesky(self._covariance)).T
        distances = np.linalg.norm(white, axis=1) / np.concatenate([f.bounds for f in frames])
        starts = np.cumsum([0, *(len(each.white) for each in frames[:-1])])
        new = [bool(each.strange - self.bonds) for each in frames]
        ranks: list[float] = (np.maximum.reduceat(distances, starts) + new).tolist()
        return ranks
