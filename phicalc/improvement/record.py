"""What happened in each round: the record, as the history keeps it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from phicalc.schema import AtLeast, build, checked, settings, to_plain
from phicalc.state import write_atomically

#: Record of a round in its folder, and of all rounds beside these.
ROUND_FILE, HISTORY_FILE = "round.json", "history.json"


@settings
@dataclass(frozen=True)
class RoundRecord:
    """What one round has found, labelled and mended.

    Raises
    ------
    ValueError
        For an entry of the wrong type.
    """

    number: Annotated[int, AtLeast(0)] = 0
    calls: Annotated[int, AtLeast(0)] = 0
    """Calls of the reference calculator, those that failed too."""
    total_calls: Annotated[int, AtLeast(0)] = 0
    """The same of all rounds so far."""
    candidates: Annotated[int, AtLeast(0)] = 0
    """Frames that were found."""
    broken: tuple[str, ...] = ()
    """How runs of the model broke down while it explored, each reason once."""
    found_by: dict[str, int] = field(default_factory=dict)
    """Labelled frames by the sampler that found them."""
    chosen_by: dict[str, int] = field(default_factory=dict)
    """The same by the reason of the choice."""
    failures: tuple[str, ...] = ()
    """Why frames could not be labelled."""
    train: Annotated[int, AtLeast(0)] = 0
    """Labelled frames of all rounds so far that are trained on."""
    valid: Annotated[int, AtLeast(0)] = 0
    """Those that are kept for validation."""
    errors: dict[str, float] = field(default_factory=dict)
    """Of the new model: ``valid_forces_mae`` (meV/Å), ``valid_energy_mae``
    (meV/atom), and the same of test frames."""
    outside: float | None = None
    """Part of the chosen frames that were outside of what the model before knew."""
    certificate: str = ""
    """One line."""
    passed: tuple[str, ...] = ()
    """Checks that passed."""
    failed: tuple[str, ...] = ()
    """Checks that failed."""
    reasons: tuple[str, ...] = ()
    """What failed in them."""
    is_passed: bool = False
    """Whether the certificate as a whole is passed."""
    seconds: Annotated[float, AtLeast(0)] = 0.0
    """Of the process that finished the round."""

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def mended(self, before: "RoundRecord | None") -> list[str]:
        """Return checks that pass now and failed in the round before."""
        return [name for name in self.passed if before is not None and name in before.failed]

    def lost(self, before: "RoundRecord | None") -> list[str]:
        """Return checks that fail now and passed in the round before."""
        return [name for name in self.failed if before is not None and name in before.passed]


def read_record(folder: Path) -> RoundRecord | None:
    """Return the record of a round that is finished; None of another."""
    path = folder / ROUND_FILE
    if not path.is_file():
        return None
    found: RoundRecord = build(RoundRecord, json.loads(path.read_text(encoding="utf-8")))
    return found


def write_record(path: Path, value: Any) -> None:
    """Write records as JSON, whole or not at all."""
    text = json.dumps(to_plain(value), indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())
