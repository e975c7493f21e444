"""One round: explore, select, label, train, validate, each a step whose product is on disk."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from ase import Atoms

from phicalc.certificate import CERTIFICATE_FILE, Certificate, read_certificate
from phicalc.checkpoint import read_card
from phicalc.data.files import find_data_file
from phicalc.domain import environments_of
from phicalc.graph import from_ase
from phicalc.improvement.config import NETWORK, ImprovementConfig
from phicalc.improvement.exploration import explore, read_atoms, write_atoms
from phicalc.improvement.record import ROUND_FILE, RoundRecord, write_record
from phicalc.improvement.selection import CHOSEN_FILE, select
from phicalc.improvement.steering import wishes_of
from phicalc.labelling import NothingLabelledError, label
from phicalc.labelling.result import journal_of
from phicalc.structures import read_structures
from phicalc.training import TrainingConfig, config_from_dict, train
from phicalc.validation import Subject, subject_of_model, validate
from phicalc.validation.subject import LONGEST_BOND

SUMMARY_FILE = "labels.json"
LABELS_FILE, TRAIN_FILE, VALID_FILE = "labels.extxyz", "train.extxyz", "valid.extxyz"
#: Settings of training where `ImprovementConfig.train` gives none.
TRAINING: dict[str, Any] = {
    "batch_size": 5,
    "threads": 1,
    "optimizer": {"lr": 0.02, "ema_decay": 0.99},
}
#: Validations of a training.
N_VALIDATIONS = 12


class Before(NamedTuple):
    """What a round starts from."""

    model: Path | None
    """Folder of the model; None if there is none yet."""
    certificate: Certificate | None
    """Its certificate."""
    folders: tuple[Path, ...]
    """Those of the rounds before."""
    calls: int
    """Calls of the reference calculator in them."""


def run_round(
    config: ImprovementConfig,
    structures: Sequence[Atoms],
    before: Before,
    folder: Path,
    report: Callable[[str], None],
) -> RoundRecord:
    """Do one round, or what is left of it, and return its record.

    Parameters
    ----------
    config
        The settings.
    structures
        Where to explore from.
    before
        What there is.
    folder
        Of the round.
    report
        Receives messages for people.
    """
    start, number = monotonic(), len(before.folders)
    folder.mkdir(parents=True, exist_ok=True)
    elements = elements_of(structures)
    exploration = folder / "exploration"
    exploration.mkdir(exist_ok=True)
    asked = wishes_of(before.certificate, elements) if config.select == "uncertainty" else []
    candidates = explore(config, structures, before.model, asked, exploration, number)
    wanted = config.first_labels if before.model is None else config.round_labels
    count = min(wanted, config.budget.max_labels - before.calls)
    known = [*(each / CHOSEN_FILE for each in before.folders), *map(find_data_file, config.data)]
    chosen = select(config, candidates, before.model, known, count, folder, number)
    report(f"round {number}: {len(read_atoms(chosen))} of {len(read_atoms(candidates))} candidates")
    labels = label_chosen(config, chosen, folder)
    folders = (*before.folders, folder)
    if not labels["frames"]:
        record = RoundRecord(
            number, labels["calls"], before.calls + labels["calls"],
            failures=tuple(labels["failures"]),
        )  # fmt: skip
        write_record(folder / ROUND_FILE, record)
        return record
    report(f"round {number}: {labels['frames']} frames labelled, {len(labels['failures'])} failed")
    metrics = train_on(config, folders, before.model, elements, folder, report)
    certificate = certify(config, structures, folders, folder, report)
    record = _record(number, before, labels, metrics, certificate, folder, monotonic() - start)
    write_record(folder / ROUND_FILE, record)
    return record


def elements_of(structures: Sequence[Atoms]) -> list[str]:
    """Return the symbols of all elements of structures, in the order of atomic numbers."""
    numbers = {int(z): s for atoms in structures for z, s in zip(atoms.numbers, atoms.symbols,
                                                                 strict=True)}  # fmt: skip
    return [numbers[z] for z in sorted(numbers)]


def label_chosen(config: ImprovementConfig, chosen: Path, folder: Path) -> dict[str, Any]:
    """Label frames, divide them into files, and return the numbers of calls and frames, and errors.

    Parameters
    ----------
    config
        The settings.
    chosen
        File with the frames.
    folder
        Of the round.
    """
    summary = folder / SUMMARY_FILE
    if summary.exists():
        found: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
        return found
    frames, labelled, errors = read_atoms(chosen), [], []
    if frames:
        try:
            result = label(
                frames, config.calculator, folder / LABELS_FILE, workers=config.workers,
                max_force=config.max_force, timeout=config.timeout,
            )  # fmt: skip
            labelled = read_structures(result.path)
            errors = [str(failure["error"]) for failure in result.failures]
        except NothingLabelledError as error:
            errors = [error.reason] * len(frames)
    for name, split in ((TRAIN_FILE, "train"), (VALID_FILE, "valid")):
        write_atoms(folder / name, [a for a in labelled if a.info.get("split") == split])
    found = {"calls": len(frames), "frames": len(labelled), "failures": errors}
    write_record(summary, found)
    return found


def forget_labels(folder: Path) -> None:
    """Forget the record of a round in which nothing could be labelled, and the failures."""
    for path in (folder / ROUND_FILE, folder / SUMMARY_FILE, journal_of(folder / LABELS_FILE)):
        path.unlink(missing_ok=True)


def train_on(
    config: ImprovementConfig,
    folders: Sequence[Path],
    model: Path | None,
    elements: Sequence[str],
    folder: Path,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Train on the frames of all rounds, and return the metrics of the model.

    Parameters
    ----------
    config
        The settings.
    folders
        Those of all rounds.
    model
        The model to start from; None trains a new one.
    elements
        Symbols that a new model knows.
    folder
        Of the round.
    report
        Receives messages for people.
    """
    output = folder / "train"
    metrics = output / "metrics.json"
    if not metrics.exists():
        settings = training_settings(config, folders, model, elements, output)
        train(settings, report=lambda line: report(line) if "best model" in line else None)
    found: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    return found


def training_settings(
    config: ImprovementConfig,
    folders: Sequence[Path],
    model: Path | None,
    elements: Sequence[str],
    output: Path,
) -> TrainingConfig:
    """Return the settings of the training of a round; arguments as of `train_on`."""
    values = training_values(config, model, elements, str(output))
    trained = [*config.data, *_files(folders, TRAIN_FILE)]
    valid = _files(folders, VALID_FILE)
    values["data"] = {"train": trained, "split": "random", "valid_count": 0}
    if valid or config.test:
        values["data"] = {
            "train": trained, "valid": valid, "test": list(config.test), "split": "files"
        }  # fmt: skip
    if "max_epochs" not in config.train:
        frames = sum(len(read_structures(name)) for name in trained)
        batches = -(-frames // values["batch_size"])
        values["max_epochs"] = max(1, round(config.steps / batches))
        values.setdefault("validate_every", max(1, values["max_epochs"] // N_VALIDATIONS))
    values.setdefault("seed", config.seed)
    return config_from_dict(values)


def training_values(
    config: ImprovementConfig, model: Path | str | None, elements: Sequence[str], output: str
) -> dict[str, Any]:
    """Return settings of a training but for its data; `model` is fine-tuned if there is one."""
    values: dict[str, Any] = {**TRAINING, **config.train, "output": output}
    if model is not None and config.finetune:
        values["init"] = str(model)
        values.pop("model", None)
    else:
        values["model"] = {"elements": list(elements), **NETWORK, **config.train.get("model", {})}
    return values


def _files(folders: Sequence[Path], name: str) -> list[str]:
    """Return the files of this name that hold frames."""
    return [str(each / name) for each in folders if (each / name).stat().st_size]


def certify(
    config: ImprovementConfig,
    structures: Sequence[Atoms],
    folders: Sequence[Path],
    folder: Path,
    report: Callable[[str], None],
) -> Certificate:
    """Validate the model of a round, and return its certificate; arguments as of `run_round`."""
    held = [atoms for name in _files(folders, VALID_FILE) for atoms in read_structures(name)]
    subject = scoped_subject(config, structures, folder / "train" / "model", held)
    return validate(subject, config=config.validate, report=report)


def scoped_subject(
    config: ImprovementConfig, structures: Sequence[Atoms], model: Path, held: Sequence[Atoms] = ()
) -> Subject:
    """Return a model as the subject of a certificate about the chemistry that the run is for.

    That is what is bonded as in the structures, in the data given, and in the domain of the model
    that is improved. A stretched bond among the frames that a run has labelled would else make it
    answer for other molecules.

    Parameters
    ----------
    config, structures
        The settings, and the structures to explore from.
    model
        Folder of the model.
    held
        Labelled frames that it was not trained on.
    """
    asked = [*structures, *(a for n in config.data for a in read_structures(find_data_file(n)))]
    names = {n for a in asked for n in environments_of(from_ase(a, LONGEST_BOND)).names}
    if config.model is not None:
        names |= set(read_card(config.model).domain.environments or ())
    subject = subject_of_model(model, compile=False, structures=(*structures, *held))
    claims = subject.claims._replace(environments=frozenset(names))
    record = {**subject.record, "environments": sorted(names)}
    return replace(subject, claims=claims, record=record)


def certificate_of(folder: Path) -> Certificate:
    """Return the certificate of the model of a finished round."""
    return read_certificate(folder / "train" / "model" / CERTIFICATE_FILE)


def _record(
    number: int,
    before: Before,
    labels: dict[str, Any],
    metrics: dict[str, Any],
    certificate: Certificate,
    folder: Path,
    seconds: float,
) -> RoundRecord:
    """Return the record of a round."""
    chosen = read_atoms(folder / CHOSEN_FILE)
    broken = json.loads((folder / "exploration" / "failures.json").read_text(encoding="utf-8"))
    novelty = [float(a.info["novelty"]) for a in chosen if "novelty" in a.info and before.model]
    failed = [each for each in certificate.outcomes if each.status in ("failed", "not run")]
    return RoundRecord(
        number=number,
        calls=labels["calls"],
        total_calls=before.calls + labels["calls"],
        candidates=len(read_atoms(folder / "exploration" / "candidates.extxyz")),
        broken=tuple(sorted({f"{each['sampler']}: {each['error']}" for each in broken})),
        found_by=_counts(chosen, "found_by"),
        chosen_by=_counts(chosen, "chosen_by"),
        failures=tuple(labels["failures"]),
        train=sum(len(read_atoms(each / TRAIN_FILE)) for each in (*before.folders, folder)),
        valid=sum(len(read_atoms(each / VALID_FILE)) for each in (*before.folders, folder)),
        errors=_errors(metrics),
        outside=sum(v > 1 for v in novelty) / len(novelty) if novelty else None,
        certificate=certificate.summary,
        passed=tuple(each.check for each in certificate.outcomes if each.status == "passed"),
        failed=tuple(each.check for each in failed),
        reasons=tuple(f"{each.check}: {_why(each)}" for each in failed),
        is_passed=certificate.passed,
        seconds=round(seconds, 1),
    )


def _why(outcome: Any) -> str:
    """Return what failed in a check."""
    beyond = [f"{f.name} {f.text} (limit {f.limit})" for f in outcome.figures if not f.passed]
    return outcome.reason or "; ".join(beyond)


def _counts(frames: Sequence[Atoms], entry: str) -> dict[str, int]:
    """Count frames by an entry of ``info``."""
    return dict(sorted(Counter(str(atoms.info[entry]) for atoms in frames).items()))


def _errors(metrics: dict[str, Any]) -> dict[str, float]:
    """Return errors of energies (meV/atom) and forces (meV/Å) on validation and test frames."""
    found = {}
    for role in ("valid", "test"):
        for name, value in metrics.get(role, {}).get("metrics", {}).items():
            if isinstance(value, float) and value == value:
                found[f"{role}_{name}"] = value
    return found
