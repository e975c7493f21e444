"""What a labelling leaves behind: an extended XYZ file, and where its frames come from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms

from phicalc.labelling.labels import UNITS, with_labels
from phicalc.labelling.sampling import Chain
from phicalc.labelling.tasks import restored
from phicalc.structures import write_structures, write_text


class LabellingResult(NamedTuple):
    """What a run leaves behind."""

    path: Path
    """Extended XYZ file with the labelled frames."""
    provenance: Path
    """JSON file that says where they come from."""
    n_frames: int
    failures: list[dict[str, Any]]
    """Frames that could not be labelled: structure, frame, error, frames lost with it."""
    warnings: dict[str, str] = {}
    """What the calculator warned of: for each kind the first text, and in how many frames."""


def _provenance_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}.provenance.json")


def finished(path: Path, settings: dict[str, Any]) -> LabellingResult | None:
    """Return the result of this very run if it is there already."""
    provenance = _provenance_of(path)
    if not (path.exists() and provenance.exists()):
        return None
    found = json.loads(provenance.read_text(encoding="utf-8"))
    if any(found.get(key) != value for key, value in settings.items()):
        return None
    return LabellingResult(
        path, provenance, found["frames"], found["failures"], found.get("warnings", {})
    )


class NothingLabelledError(RuntimeError):
    """Every frame of a run failed.

    Parameters
    ----------
    first
        What the first one failed with.
    journal
        File that keeps the failures: without it they are tried again.
    """

    def __init__(self, first: str, journal: Path):
        self.reason, self.journal = f"every frame failed; the first: {first}", journal
        super().__init__(f"{self.reason} (to try the same again, remove {journal})")


def journal_of(path: Path) -> Path:
    """Return the file in which a run keeps what is done of the labels for another file."""
    return path.with_name(f"{path.name}.journal")


def write_result(
    path: Path,
    structures: Sequence[Atoms],
    chains: Sequence[Chain],
    entries: dict[tuple[int, int], dict[str, Any]],
    settings: dict[str, Any],
) -> LabellingResult:
    """Write frames in the order of the chains, and where they come from.

    Raises
    ------
    NothingLabelledError
        If every frame failed.
    """
    frames, failures = [], []
    for (number, index), entry in sorted(entries.items()):
        chain = chains[number]
        if "error" in entry:
            lost = chain.n_frames - index - 1
            failures.append({"structure": chain.structure, **chain.note, "frame": index,
                             "error": entry["error"], "frames_lost_after": lost})  # fmt: skip
            continue
        atoms = with_labels(restored(structures[chain.structure], entry["state"]), entry["labels"])
        atoms.info |= {"structure": chain.structure, **chain.note}
        frames.append(atoms)
    if not frames:
        raise NothingLabelledError(failures[0]["error"], journal_of(path))
    provenance = _provenance_of(path)
    document = {**settings, "units": UNITS, "frames": len(frames), "failures": failures}
    if said := _warnings(entries):
        document["warnings"] = said
    new = path.with_name(f"{path.name}.tmp")
    write_structures(new, frames)
    new.replace(path)
    write_text(provenance, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return LabellingResult(path, provenance, len(frames), failures, said)


def _warnings(entries: dict[tuple[int, int], dict[str, Any]]) -> dict[str, str]:
    """Return the first warning of each kind, and how many frames have one."""
    texts: dict[str, list[str]] = {}
    for _, entry in sorted(entries.items()):
        for kind, text in entry.get("warnings", {}).items():
            texts.setdefault(kind, []).append(text)
    return {kind: f"{found[0]} ({len(found)} frames)" for kind, found in texts.items()}
