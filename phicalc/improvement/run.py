"""A run of active learning: rounds until the certificate is passed or the budget is spent."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ase import Atoms

from phicalc.checkpoint import find_model, read_card
from phicalc.data.files import find_data_file
from phicalc.improvement.beforehand import check_beforehand, check_reference_labels
from phicalc.improvement.config import ImprovementConfig
from phicalc.improvement.page import write_history
from phicalc.improvement.record import RoundRecord, read_record, write_record
from phicalc.improvement.rounds import (
    Before,
    certificate_of,
    forget_labels,
    run_round,
    scoped_subject,
)
from phicalc.improvement.teacher import Verdict, examine
from phicalc.locks import file_lock
from phicalc.schema import differences, dump_yaml, read_yaml
from phicalc.state import write_atomically
from phicalc.structures import read_structures
from phicalc.training.run import say
from phicalc.validation import validate

SETTINGS_FILE, REFERENCE_FILE = "settings.yaml", "reference.json"
#: Frames that show whether the reference calculator can be trusted.
FRAMES_FILE = "reference.extxyz"
#: Settings in which a run that goes on may differ.
_FREE = ("output", "workers", "timeout")


class ImprovementResult(NamedTuple):
    """What a run leaves behind."""

    passed: bool
    """Whether the certificate is passed."""
    model: Path | None
    """Folder of the best model; None if there is none."""
    calls: int
    """Calls of the reference calculator."""
    records: tuple[RoundRecord, ...]
    """One for each round."""
    line: str
    """How it ended, and what still fails."""


def improve(config: ImprovementConfig, report: Callable[[str], None] = say) -> ImprovementResult:
    """Improve a model by active learning, or train a new one, until its certificate is passed.

    Each round explores with the model, selects what it knows least, labels that with the reference
    calculator, trains, and validates. All of it is on disk: killed at any moment and started again
    with the same settings, a run comes to the same end (on a CPU bit for bit, unless time is what
    ends it). A run that has ended goes on if `config.budget` is larger.

    Parameters
    ----------
    config
        The settings.
    report
        Receives messages for people.

    Raises
    ------
    FileNotFoundError
        If a file or the model is missing.
    ValueError
        If the output folder holds a run with other settings, the structures or labels make no
        sense, or the forces of the reference calculator do not belong to its energies.
    RuntimeError
        If another process improves in that folder, or a training diverges.
    """
    structures = [a for name in config.structures for a in read_structures(name)]
    check_beforehand(config, structures)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / ".lock", folder):
        _keep_settings(config, folder)
        verdict = _examined(config, structures, folder, report)
        return _Run(config, structures, folder, verdict, report).complete()


def _keep_settings(config: ImprovementConfig, folder: Path) -> None:
    """Write the settings and the digests of all inputs, or refuse others than those of before."""
    path = folder / SETTINGS_FILE
    files = [*config.structures, *(str(find_data_file(n)) for n in (*config.data, *config.test))]
    inputs = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files}
    if config.model is not None:
        inputs["model"] = read_card(config.model).sha256
    now = {**config.to_dict(), "inputs": inputs}
    if path.exists():
        changed = [
            text for text in differences(read_yaml(path), now, skip=_FREE)
            if not text.startswith("budget.")
        ]  # fmt: skip
        if changed and _rounds(folder):
            raise ValueError(
                f"{folder} holds a run with other settings ({'; '.join(changed)}). Choose another "
                "output, or the same settings to continue that run, or remove the folder"
            )
        if changed:  # nothing has been done with those of before
            for left in (folder / REFERENCE_FILE, *folder.glob(f"{Path(FRAMES_FILE).stem}*")):
                left.unlink(missing_ok=True)
    write_atomically(path, dump_yaml(now).encode())


def _rounds(folder: Path) -> list[Path]:
    """Return the folders of the rounds that have been begun."""
    return sorted(folder.glob("round_*"))


def _examined(
    config: ImprovementConfig,
    structures: Sequence[Atoms],
    folder: Path,
    report: Callable[[str], None],
) -> Verdict:
    """Look at the reference calculator once, before labels are spent on it."""
    path = folder / REFERENCE_FILE
    if path.exists():
        return Verdict(**read_yaml(path))
    verdict = Verdict(None, None)
    if config.check_reference:
        frames = folder / FRAMES_FILE
        verdict = examine(structures, config.calculator, frames, workers=config.workers,
                          timeout=config.timeout)  # fmt: skip
        if frames.exists():
            check_reference_labels(config, read_structures(frames)[0])
    if verdict.warning:
        report(f"warning: {verdict.warning}")
    write_record(path, verdict._asdict())
    return verdict


class _Run:
    """The rounds of one process.

    Parameters
    ----------
    config, structures, folder, verdict, report
        See `improve`.
    """

    def __init__(
        self,
        config: ImprovementConfig,
        structures: Sequence[Atoms],
        folder: Path,
        verdict: Verdict,
        report: Callable[[str], None],
    ) -> None:
        self.config, self.structures, self.folder = config, structures, folder
        self.verdict, self.report = verdict, report
        self.records: list[RoundRecord] = []
        self.before = self._start()

    def _start(self) -> Before:
        """Return what the first round starts from."""
        if self.config.model is None:
            return Before(None, None, (), 0)
        model = find_model(self.config.model)
        subject = scoped_subject(self.config, self.structures, model)
        certificate = validate(
            subject, self.folder / "start", self.config.validate, report=self.report
        )
        self.report(f"at the start: {certificate.summary}")
        return Before(model, certificate, (), 0)

    def complete(self) -> ImprovementResult:
        """Do rounds until there is a reason to end, and return how it ended."""
        while (reason := self._reason_to_end()) is None:
            folder = self.folder / f"round_{len(self.records):02d}"
            record = read_record(folder)
            if record is not None and not record.certificate:
                record = None  # an earlier process got no label: perhaps this one does
                forget_labels(folder)
            if record is None:
                record = run_round(self.config, self.structures, self.before, folder, self.report)
            self._take(record, folder)
        model, which = self._keep_best()
        line = self._last_line(reason, model, which)
        self._write_history(line)
        self.report(line)
        passed = self._certificate_passed()
        return ImprovementResult(passed, model, self.before.calls, tuple(self.records), line)

    def _take(self, record: RoundRecord, folder: Path) -> None:
        """Go on from a finished round."""
        last = self.records[-1] if self.records else None
        self.records.append(record)
        self.before = self.before._replace(calls=self.before.calls + record.calls)
        if record.certificate:
            self.before = self.before._replace(
                model=folder / "train" / "model",
                certificate=certificate_of(folder),
                folders=(*self.before.folders, folder),
            )
            said = f"round {record.number}: {record.certificate}"
            for word, names in (("mended", record.mended(last)), ("lost", record.lost(last))):
                said += f"; {word}: {', '.join(names)}" if names else ""
            self.report(f"{said}; {self._spent(record)}")
        self._write_history("not finished")

    def _spent(self, record: RoundRecord) -> str:
        """Return what a round took, and how much of the budget is spent."""
        budget = self.config.budget
        minutes = sum(each.seconds for each in self.records) / 60
        limit = "" if budget.max_minutes is None else f" of {budget.max_minutes:g}"
        return (
            f"it took {record.calls} labels and {record.seconds / 60:.1f} minutes; "
            f"spent: {self.before.calls} of {budget.max_labels} labels, "
            f"{minutes:.1f}{limit} minutes"
        )

    def _certificate_passed(self) -> bool:
        certificate = self.before.certificate
        return certificate is not None and certificate.passed

    def _reason_to_end(self) -> str | None:
        """Return why no further round is done; None if one is."""
        budget, records = self.config.budget, self.records
        minutes = sum(record.seconds for record in records) / 60
        if self._certificate_passed():
            return "the certificate is passed"
        if records and not records[-1].certificate:
            if not records[-1].calls:
                return f"round {records[-1].number} found no new frame to label (see 'explore')"
            why = f": {records[-1].failures[0]}" if records[-1].failures else ""
            return f"round {records[-1].number} gave no labelled frame{why}"
        if self.before.calls >= budget.max_labels:
            return f"the budget of {budget.max_labels} labels is spent"
        if len(records) >= budget.max_rounds:
            return f"the budget of {budget.max_rounds} rounds is spent"
        if budget.max_minutes is not None and minutes >= budget.max_minutes:
            return f"the budget of {budget.max_minutes:g} minutes is spent"
        return None

    def _keep_best(self) -> tuple[Path | None, RoundRecord | None]:
        """Copy the model that passes most checks, the latest of equals, with its certificate."""
        whole = [record for record in self.records if record.certificate]
        if not whole:
            return None, None
        best = max(whole, key=lambda r: (r.is_passed, len(r.passed) - len(r.failed), r.number))
        source = self.folder / f"round_{best.number:02d}" / "train" / "model"
        target, new = self.folder / "model", self.folder / "model.tmp"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(source, new)
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
        return target, best

    def _last_line(self, reason: str, model: Path | None, best: RoundRecord | None) -> str:
        """Return how the run ended, and what still fails."""
        n, calls = len(self.records), self.before.calls
        spent = f"after {n} round{'s' * (n != 1)} and {calls} labels"
        if model is None or best is None:
            return f"{reason} {spent}; there is no new model"
        if self._certificate_passed():
            return f"{reason} {spent}: {best.certificate}; the model is in {model}"
        failing = ", ".join(best.failed) or "nothing"
        return (
            f"{reason} {spent}; still failing: {failing}; the best model, of round {best.number} "
            f"({best.certificate}), is in {model}"
        )

    def _write_history(self, line: str) -> None:
        remarks = [line, *filter(None, [self.verdict.warning])]
        write_history(self.folder, self.records, remarks, self.config.to_dict())
