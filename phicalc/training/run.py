"""A whole training run: data → fitted configuration → training → model, metrics and pictures."""

import json
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from phicalc.checkpoint import (
    read_card,
    resolve_device,
    resolve_dtype,
    save_model,
)
from phicalc.derivatives import RESPONSES
from phicalc.potential import Potential, PotentialConfig, build_potential
from phicalc.state import State, write_atomically
from phicalc.system import keep_freed_memory, thread_count
from phicalc.training.card import card_of_run
from phicalc.training.config import TrainingConfig, load_config
from phicalc.training.dataset import (
    Sample,
    Splits,
    check_elements,
    check_labels_make_sense,
    check_responses,
    load_splits,
    make_samples,
    prepare_samples,
)
from phicalc.training.domain import domain_of_samples
from phicalc.training.evaluate import evaluate_samples, table
from phicalc.training.events import EpochDone, Event, Improved, Saved
from phicalc.training.initialization import inherited_potential, initial_potential
from phicalc.training.plots import plot_curves, plot_parity
from phicalc.training.progress import Position, describe_epoch
from phicalc.training.run_folder import RunFolder
from phicalc.training.team import Team, joined
from phicalc.training.trainer import Trainer
from phicalc.training.uncertainty import calibration, fit_uncertainty


class TrainingResult(NamedTuple):
    """What a training run leaves behind."""

    model: Path
    """Folder of the best model."""
    metrics: dict[str, Any]
    """Content of ``metrics.json`` (under ``torchrun``: empty in all processes but the first)."""


def say(message: str) -> None:
    """Print a line at once, above a progress bar if there is one."""
    tqdm.write(message)
    # a redirected output is buffered, and a long run should be watchable
    print(end="", flush=True)


def train_from_yaml(
    path: str | Path, overrides: list[str] | None = None, report: Callable[[str], None] = say
) -> TrainingResult:
    """Train as a YAML file says, with overrides such as ``optimizer.lr=0.005``.

    Data files with relative names are looked for beside the YAML file, in the current folder, and
    in the folder that the environment variable ``PHICALC_DATA`` names. The output folder is
    relative to the current folder.
    """
    config = load_config(path, overrides)
    return train(config, base=Path(path).parent, report=report)


def train(
    config: TrainingConfig, base: Path | None = None, report: Callable[[str], None] = say
) -> TrainingResult:
    """Train a potential; continue if the output folder holds an unfinished run.

    A run can be killed at any moment and started again with the same settings. On a CPU the
    result is then the same, bit for bit, as that of an uninterrupted run with the same number of
    threads.

    Started by ``torchrun``, the processes divide each batch of `config.batch_size` structures among
    them: the losses are those of one process, to rounding. Only the first writes and reports.

    Parameters
    ----------
    config
        Settings of the run.
    base
        Folder from which relative names of data files start.
    report
        Receives messages for people.

    Returns
    -------
    TrainingResult
        The folder of the best model and its errors.

    Raises
    ------
    ValueError
        For data that do not fit the settings, or an output folder with another run.
    RuntimeError
        If a run is going on in the output folder.
    TrainingDiverged
        When the loss stops being finite.
    """
    keep_freed_memory()
    with thread_count(config.threads), joined() as team, ExitStack() as stack:
        if team.leads:
            stack.enter_context(RunFolder(config.output).locked())
        return _Run(config, base, report if team.leads else lambda _: None, team).complete()


class _Run:
    """The stages of one run, which share data, folder and potential."""

    def __init__(
        self, config: TrainingConfig, base: Path | None, report: Callable[[str], None], team: Team
    ):
        self.config, self.report, self.team = config, report, team
        self.device = team.place(resolve_device(config.device))
        self.dtype = resolve_dtype(config.dtype)
        self.splits = self._load(base)
        self.folder = RunFolder(config.output)
        self.saved = self.folder.open(config, write=team.leads)
        team.wait()  # all have read the state before the first one writes a new one
        self._check_same_data()
        self.parent = None if config.init is None else self._parent(config.init)
        self.potential = self._build()
        self.report(f"{sum(p.numel() for p in self.potential.parameters())} parameters")

    def _load(self, base: Path | None) -> Splits:
        """Read the data and check that model and loss fit them."""
        splits = load_splits(self.config.data, self.config.loss, base)
        started = self.config.init is not None
        elements = self.config.model.elements
        check_elements(splits.train, elements, all_present=not started)
        check_elements(splits.valid + splits.test, elements, all_present=False)
        check_labels_make_sense(splits.train + splits.valid, self.config.loss)
        if self.config.loss.changes and not splits.valid:
            raise ValueError(
                "a loss whose weights change cannot say which epoch is best: keep frames "
                "for validation (data.valid_count), or leave out final_weight"
            )
        head = self.config.model.head
        needing = ("charges", "dipole", *RESPONSES)
        used = [name for name in needing if getattr(self.config.loss, name).used]
        if used and not head.implementation.has_charges:
            raise ValueError(
                f"loss.{used[0]} has a weight, but model.head {head.name!r} has no charges; set "
                f"loss.{used[0]}.weight to 0 or choose a head"
            )
        counts = splits.record["counts"]
        self.report(f"structures: {', '.join(f'{n} {role}' for role, n in counts.items())}")
        return splits

    def _check_same_data(self) -> None:
        if self.saved and self.saved.document["data"] != self.splits.record:
            raise ValueError(
                f"{self.folder.path} holds a run on other data (the digests of the files differ). "
                "Choose another output folder, or restore the data to continue that run"
            )

    def _parent(self, init: str) -> dict[str, str]:
        """Say which model the run starts from; a continued run knows it."""
        if self.saved is not None:
            return self.saved.document["parent"]
        card = read_card(init)
        return {"name": card.name, "sha256": card.sha256}

    def _build(self) -> Potential:
        """Make the samples, fit what is fitted, and build the potential."""
        config = self.config
        samples = {
            role: make_samples(getattr(self.splits, role), config.model.cutoff)
            for role in ("train", "valid", "test")
        }
        if self.saved is not None:
            fitted = PotentialConfig.from_dict(self.saved.document["potential"])
            potential = build_potential(fitted).to(device=self.device, dtype=self.dtype)
        else:
            potential, notes = self._start(samples["train"])
            for note in notes:
                self.report(note)
        if potential.head.starting is not None:
            potential.head.starting.formal.requires_grad_(config.penalties.integer_fragments > 0)
        check_responses(samples["train"] + samples["valid"], config.loss, potential)
        self.domain = domain_of_samples(self.splits.train, samples["train"], config.loss)
        self.samples = {role: prepare_samples(s, potential) for role, s in samples.items()}
        return potential

    def _start(self, samples: Sequence[Sample]) -> tuple[Potential, list[str]]:
        """Make the potential before its first step: a new one, or from the weights of another."""
        config = self.config
        if config.init is None:
            return initial_potential(
                config.model,
                samples,
                seed=config.seed,
                given_references=self._reference_energies(),
                device=self.device,
                dtype=self.dtype,
            )
        return inherited_potential(
            config.init,
            config.model,
            samples,
            given_references=self._reference_energies(),
            device=self.device,
            dtype=self.dtype,
        )

    def _reference_energies(self) -> dict[str, float] | None:
        """Energies of the elements in eV that are given, or those of isolated atoms; else None."""
        given, found = self.config.data.reference_energies, self.splits.element_energies
        if given is not None or not found:
            return given
        listed = ", ".join(f"{symbol} {energy:.4f}" for symbol, energy in found.items())
        missing = sorted(set(self.config.model.elements) - set(found))
        if missing:
            self.report(
                f"isolated atoms ({listed} eV) left out: there is none of {', '.join(missing)}, so "
                "the reference energies are fitted"
            )
            return None
        self.report(f"reference energies of isolated atoms: {listed} eV")
        return found

    def complete(self) -> TrainingResult:
        """Train from the saved state, or from the start, to the end."""
        trainer = Trainer(
            self.potential,
            self.samples["train"],
            self.samples["valid"],
            self.config,
            report=self.report,
            team=self.team,
        )
        if self.saved is not None:
            trainer.restore(self.saved)
            where = trainer.position
            self.report(f"continuing after {where.epoch} epochs and {where.batch} batches")
        with closing(trainer.run()) as events:
            if not self.team.leads:  # trains with the others, and writes nothing
                deque(events, maxlen=0)
                return TrainingResult(self.folder.model, {})
            self.folder.cut_history(trainer.position.epoch)
            for event in events:
                self._take(event, trainer.position)
        return self._finish(trainer)

    def _take(self, event: Event, position: Position) -> None:
        """Write and report what happened in training."""
        match event:
            case Saved(state):
                self._save(state)
            case Improved(metrics):
                self._save_best({"valid": metrics}, position.best_epoch)
            case EpochDone(row, stopped):
                self.folder.append(row)
                self.report(describe_epoch(row, self.config.max_epochs, position))
                if stopped:
                    self.report(f"stopped: {self.config.patience} validations without improvement")

    def _save(self, state: State) -> None:
        """Save the state together with the settings and data that it belongs to."""
        document = {
            "config": self.config.to_dict(),
            "data": self.splits.record,
            "potential": self.potential.config.to_dict(),
            "parent": self.parent,
        }
        self.folder.save(State(state.tensors, {**state.document, **document}))

    def _save_best(self, metrics: dict[str, Any], epoch: int) -> None:
        """Write the potential, with its current weights, as the model of the run."""
        card = card_of_run(self.config, self.splits, self.domain, self.parent, metrics, epoch)
        save_model(self.folder.model, self.potential, card)

    def _finish(self, trainer: Trainer) -> TrainingResult:
        """Evaluate the best model and write model, metrics and pictures."""
        trainer.use_best()
        metrics: dict[str, Any] = {}
        for role, samples in self.samples.items():
            if samples:
                evaluation = evaluate_samples(self.potential, samples, self.config.batch_size)
                metrics[role] = evaluation.to_dict()
                self.report(f"best model (epoch {trainer.position.best_epoch}), {role} set:")
                for line in table(evaluation):
                    self.report(f"  {line}")
        known = self._fit_uncertainty() if self.config.uncertainty else {}
        plot_parity(evaluation.parity, self.folder.parity)
        plot_curves(self.folder.read_history(), self.folder.curves)
        best = {role: found["metrics"] for role, found in metrics.items()}
        self._save_best({**best, **known}, trainer.position.best_epoch)
        metrics |= known
        metrics["best_epoch"] = trainer.position.best_epoch
        metrics["seconds"] = round(trainer.position.seconds, 1)
        write_atomically(self.folder.metrics, (json.dumps(metrics, indent=2) + "\n").encode())
        self.report(f"the model is in {self.folder.model}")
        return TrainingResult(self.folder.model, metrics)

    def _fit_uncertainty(self) -> dict[str, Any]:
        """Fit the uncertainty of the potential, and return how well it is calibrated."""
        size, samples = self.config.batch_size, self.samples
        judge = "valid" if samples["valid"] else "train"
        found = {judge: fit_uncertainty(self.potential, samples["train"], samples["valid"], size)}
        if samples["test"]:
            found["test"] = calibration(self.potential, samples["test"], size)
        for role, result in found.items():
            self.report(f"uncertainty, {role} set: {result.line()}")
        return {"uncertainty": {role: result.metrics() for role, result in found.items()}}
