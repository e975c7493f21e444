"""Run the checks: one after another, each written to a journal as it is finished."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from phicalc._version import __version__
from phicalc.certificate import (
    CERTIFICATE_FILE,
    Certificate,
    Outcome,
    certificate_page,
    read_certificate,
    write_certificate,
)
from phicalc.labelling.journal import Journal
from phicalc.locks import file_lock
from phicalc.schema import build, to_plain
from phicalc.schema.words import hint
from phicalc.state import write_atomically
from phicalc.validation.check import Check, Context
from phicalc.validation.checks import all_checks
from phicalc.validation.config import ValidationConfig
from phicalc.validation.subject import Subject

#: The page, beside the file.
PAGE_FILE = "certificate.html"
#: Folder with the journal and the runs of unfinished checks, beside them.
WORK_FOLDER = "certificate.work"
JOURNAL_FILE = "checks.journal"
LOCK_FILE = "lock"


def validate(
    subject: Subject,
    output: str | Path | None = None,
    config: ValidationConfig | None = None,
    *,
    overwrite: bool = False,
    report: Callable[[str], None] = print,
    checks: Mapping[str, Check] | None = None,
) -> Certificate:
    """Run checks on a calculator, and write and return its certificate.

    A process that ends, in whatever way, loses the check it was working on only (long dynamics go
    on from their last checkpoint): start it again with the same settings. What an earlier run has
    found stays in the certificate, unless the model, a setting that enters results, or phicalc's
    version has changed since; checks that ended with an error are tried again.

    Parameters
    ----------
    subject
        From `subject_of_model`, `subject_of_spec` or `subject_of_calculator`.
    output
        Folder for ``certificate.json`` and ``certificate.html``; by default that of the model.
    config
        The settings.
    overwrite
        Forget what earlier runs have found.
    report
        Receives a line for each check.
    checks
        The checks; all in `phicalc.validation.checks` if not given.

    Raises
    ------
    ValueError
        For names of checks that do not exist, settings that leave no check, without an output for a
        calculator that is no model, and for a reference that cannot be made.
    OSError
        If the folder cannot be written.
    RuntimeError
        If another process is validating into that folder.
    """
    config = ValidationConfig() if config is None else config
    checks = all_checks() if checks is None else checks
    chosen = _chosen(checks, config)
    if config.reference is not None:
        config.reference.try_out(subject.elements[0])
    folder = _folder(subject, output)
    work = folder / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    with file_lock(work / LOCK_FILE, folder):
        run = _Run(subject, config, work, _digest(subject, config), report)
        run.recall(folder / CERTIFICATE_FILE, overwrite)
        for check in chosen:
            run.do(check)
        certificate = run.certificate(checks)
        write_certificate(folder / CERTIFICATE_FILE, certificate)
        write_atomically(folder / PAGE_FILE, certificate_page(certificate).encode())
        shutil.rmtree(work)  # what was not run starts anew, what was is in the certificate
    return certificate


class _Run:
    """The checks of one process.

    Parameters
    ----------
    subject, config, report
        As of `validate`.
    work
        Folder for the journal and for runs.
    digest
        Of all that the results depend on.
    """

    def __init__(
        self,
        subject: Subject,
        config: ValidationConfig,
        work: Path,
        digest: str,
        report: Callable[[str], None],
    ) -> None:
        self.subject, self.config, self.digest = subject, config, digest
        self.work, self.report, self.start = work, report, monotonic()
        self.journal = Journal(work / JOURNAL_FILE, {"digest": digest})
        self.outcomes: dict[str, Outcome] = {}

    def recall(self, path: Path, overwrite: bool) -> None:
        """Take over what earlier processes have found, from the certificate and the journal."""
        if overwrite:
            self._clear()
        elif path.is_file():
            earlier = _readable(path)
            if earlier is not None and earlier.digest == self.digest:
                self.outcomes = {each.check: each for each in earlier.outcomes if not _broke(each)}
        try:
            entries = self.journal.open()
        except ValueError:  # of another model or other settings, or damaged
            self._clear()
            entries = self.journal.open()
        self.outcomes |= {entry["check"]: build(Outcome, entry) for entry in entries}

    def _clear(self) -> None:
        """Remove journal and unfinished runs; the lock stays."""
        for path in self.work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK_FILE:
                path.unlink()

    def do(self, check: Check) -> None:
        """Run a check that has not been finished, if there is time."""
        limit, outcome = self.config.limit_minutes, self.outcomes.get(check.name)
        if outcome is None or outcome.status == "not run":
            if limit is not None and monotonic() - self.start > 60 * limit:
                reason = f"the time limit of {limit:g} minutes was over"
                outcome = Outcome(check.name, check.title, "not run", reason)
            else:
                context = Context(self.config, self.work / check.name)
                outcome = perform(check, self.subject, context)
                self.journal.append(to_plain(outcome))
                shutil.rmtree(self.work / check.name, ignore_errors=True)
            self.outcomes[check.name] = outcome
        self.report(_line(outcome))

    def certificate(self, checks: Iterable[str]) -> Certificate:
        """Return the certificate, in the order of the checks."""
        names = list(checks)
        subject = self.subject
        return Certificate(
            subject=subject.name,
            digest=self.digest,
            model_sha256=subject.model_sha256,
            elements=subject.elements,
            settings=self.config.to_dict(),
            outcomes=tuple(self.outcomes[name] for name in names if name in self.outcomes),
            left_out=tuple(name for name in names if name not in self.outcomes),
        )


def _broke(outcome: Outcome) -> bool:
    """Whether a check ended with an error, which may have another cause than the calculator."""
    return outcome.status == "failed" and not outcome.figures


def _readable(path: Path) -> Certificate | None:
    """Return an earlier certificate; None if it cannot be read and must be made anew."""
    try:
        return read_certificate(path)
    except ValueError:
        return None


def _folder(subject: Subject, output: str | Path | None) -> Path:
    """Return where the certificate goes."""
    if output is not None:
        return Path(output)
    if subject.folder is None:
        raise ValueError(f"{subject.name} is no model with a folder: give an output folder")
    return subject.folder


def _chosen(checks: Mapping[str, Check], config: ValidationConfig) -> list[Check]:
    """Return the checks that the settings name."""
    for name in (*config.only, *config.skip):
        if name not in checks:
            known = ", ".join(checks)
            raise ValueError(f"no check {name!r}{hint(name, checks) or '.'} Known: {known}")
    chosen = [
        check
        for name, check in checks.items()
        if (name in config.only if config.only else check.quick or not config.quick)
        and name not in config.skip
    ]
    if not chosen:
        raise ValueError(f"nothing is left to check: 'skip' names {', '.join(config.skip)}")
    return chosen


def _digest(subject: Subject, config: ValidationConfig) -> str:
    """Return the digest of all that results depend on."""
    structures = [
        [frame.numbers, frame.positions, frame.cell.array, frame.pbc, frame.info.get("charge")]
        for frame in subject.structures
    ]
    known = {
        "subject": subject.record,
        "elements": subject.elements,
        "structures": structures,
        "settings": config.physics(),
        "phicalc": __version__,
    }
    text = json.dumps(known, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return an array as lists, and anything else as text."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def perform(check: Check, subject: Subject, context: Context) -> Outcome:
    """Run one check; what it raises is a failure, with the reason.

    Parameters
    ----------
    check, subject, context
        See there.
    """
    start = monotonic()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # strange structures are the purpose here
            if reason := check.applies(subject):
                return Outcome(check.name, check.title, "not applicable", reason)
            found = check.run(subject, context)
            figures = tuple(found.figures)
    except (Exception, SystemExit) as error:  # calculators raise, and exit, as they like
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        seconds = round(monotonic() - start, 3)
        return Outcome(check.name, check.title, "failed", reason, seconds=seconds)
    if not figures:
        return Outcome(check.name, check.title, "not applicable", "no structure to measure it with")
    return Outcome.of(
        check.name,
        check.title,
        figures,
        notes=found.notes,
        plots=found.plots,
        seconds=monotonic() - start,
    )


def _line(outcome: Outcome) -> str:
    """Return one line about an outcome."""
    failed = [
        f"{each.name} {each.text} (limit {each.limit})"
        for each in outcome.figures
        if not each.passed
    ]
    more = f" … {len(failed) - 3} more" if len(failed) > 3 else ""
    text = outcome.reason or "; ".join(failed[:3]) + more
    return f"{outcome.status:<15} {outcome.check:<14} {outcome.seconds:>7.1f} s  {text}".rstrip()
