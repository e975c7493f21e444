"""The training loop: steps, validation, averaged weights, early stopping, exact continuation."""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64
from tqdm import tqdm

from phicalc.data.labels import LABELS
from phicalc.derivatives import RESPONSES
from phicalc.potential import Potential
from phicalc.state import State
from phicalc.training.config import TrainingConfig
from phicalc.training.dataset import Sample, batch_plan, batches, join
from phicalc.training.engine import Engine
from phicalc.training.events import EpochDone, Event, Improved, Saved
from phicalc.training.loss import ErrorSums, LossValue, errors, label_counts, loss_value
from phicalc.training.objective import LossConfig
from phicalc.training.optimization import MovingAverage, Schedule, copy_weights, make_optimizer
from phicalc.training.packing import (
    pack_optimizer,
    pack_random_state,
    unpack_optimizer,
    unpack_random_state,
)
from phicalc.training.penalties import penalized
from phicalc.training.progress import Position
from phicalc.training.team import Team


class TrainingDiverged(RuntimeError):
    """The loss or its gradient stopped being finite."""


class Trainer:
    """Trains a potential on prepared samples.

    Parameters
    ----------
    potential
        The potential, on its device and in its dtype; trained in place.
    train, valid
        Prepared samples; without validation samples the training loss decides what is best.
    config
        Settings of the run.
    report
        Receives messages about compilation.
    team
        The processes that share the work; all of them have the same samples.
    """

    def __init__(
        self,
        potential: Potential,
        train: Sequence[Sample],
        valid: Sequence[Sample],
        config: TrainingConfig,
        *,
        report: Callable[[str], None],
        team: Team = Team(),  # noqa: B008 - frozen
    ):
        self.potential, self.config, self.team = potential, config, team
        self.train, self.valid = train, valid
        self.parameters = [p for p in potential.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        steps = len(batch_plan(len(train), config.batch_size))
        self.optimizer = make_optimizer(potential, config.optimizer)
        self.schedule = Schedule(config.schedule, config.optimizer.lr, steps, config.max_epochs)
        self.average = MovingAverage(potential, config.optimizer.ema_decay)
        self.best = {key: weight.clone() for key, weight in self.average.weights.items()}
        self.position = Position()
        self.random_state: dict[str, torch.Tensor] | None = None
        self.engine = Engine(
            potential,
            stress=config.loss.stress.used,
            responses=[name for name in RESPONSES if getattr(config.loss, name).used],
            compile=config.compile,
            n_steps=steps * config.max_epochs,
            report=report,
        )

    def run(self) -> Generator[Event, None, None]:
        """Train until the end, or until validation stops improving, and yield what happens.

        The potential has the (averaged) weights that were validated while `Improved` is handled.
        Close the iterator if it is not exhausted: that restores torch's random numbers.

        Raises
        ------
        TrainingDiverged
            When loss or gradient are not finite, the last saved state is left as it is; or when no
            validation gave a finite loss.
        """
        position, total = self.position, self.schedule.n_steps
        quiet = None if self.team.leads else True
        bar = tqdm(total=total, initial=position.step, unit="step", disable=quiet)
        with torch.random.fork_rng(), bar:
            self._seed()
            while position.epoch < self.config.max_epochs and not position.finished:
                yield from self._run_epoch(bar)
                position.finished |= position.epoch == self.config.max_epochs
                if position.finished or _due(position.epoch, self.config.checkpoint.every_epochs):
                    yield Saved(self.state())
        if position.best_loss is None:
            raise TrainingDiverged(
                "no validation gave a finite loss, so there is no best model: look for wrong "
                "labels or atoms that nearly coincide in the validation frames, or try a smaller "
                "optimizer.lr"
            )

    def _seed(self) -> None:
        """Start, or continue, torch's random numbers (those outside the run are not touched)."""
        if self.random_state is None:
            torch.manual_seed(self.config.seed)
        else:
            unpack_random_state(self.random_state)

    def _run_epoch(self, bar: tqdm) -> Iterator[Event]:
        """Take the remaining steps of the current epoch, then validate."""
        config, position = self.config, self.position
        plan = batch_plan(len(self.train), config.batch_size, (config.seed, position.epoch))
        start = time.monotonic()
        for indices in plan[position.batch :]:
            self._step([self.train[i] for i in indices])
            bar.update()
            position.seconds += time.monotonic() - start
            start = time.monotonic()
            if _due(position.step, config.checkpoint.every_steps) and position.batch < len(plan):
                yield Saved(self.state())
        row = self._finish_epoch()
        last = position.epoch == config.max_epochs
        if validated := last or _due(position.epoch, config.validate_every):
            yield from self._judge(row)
        position.seconds += time.monotonic() - start
        yield EpochDone({**row, "seconds": round(position.seconds, 2)}, validated and self._stops())

    def _step(self, samples: Sequence[Sample]) -> None:
        """Update the weights once."""
        rate = self.schedule.rate(self.position.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        numbers = self.engine.attempt(partial(self._backward, samples))
        self.team.add_gradients(self.parameters)
        loss, *error_sums = self.team.add(numbers)
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.parameters if p.grad is not None]
        )
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            raise TrainingDiverged(
                f"loss {loss} and gradient norm {float(norm)} at step {self.position.step} (epoch "
                f"{self.position.epoch + 1}). The last saved state and the best model so far are "
                "kept. Try a smaller optimizer.lr, a longer schedule.warmup_epochs or a smaller "
                "optimizer.clip, and look for wrong labels or atoms that nearly coincide"
            )
        if self.config.optimizer.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.optimizer.clip, norm)
        self.optimizer.step()
        self.average.update()
        self._count(loss, error_sums, len(samples))

    def _backward(self, samples: Sequence[Sample]) -> list[float]:
        """Loss and error sums of this process' share of a batch; its gradient in the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        share, sums = self.team.share(samples), ErrorSums()
        if not share:
            return [0.0, *sums.numbers()]
        loss = self.config.loss.at(self.position.step / self.schedule.n_steps)
        counts = None if len(share) == len(samples) else label_counts(samples)
        value, found = self._loss(join(share).to(self.device), loss, counts)
        value.total.backward()
        sums.add(found)
        return [float(value.total.detach()), *sums.numbers()]

    def _loss(
        self, batch: Sample, loss: LossConfig, counts: dict[str, int] | None
    ) -> tuple[LossValue, dict[str, Float64[torch.Tensor, "..."]]]:
        """Loss (differentiable with respect to the weights) and errors of a batch."""
        prediction = self.engine(batch.graph)
        found = errors(prediction, batch.labels, batch.graph)
        value = loss_value(found, batch.graph, loss, self.potential.config.energy_scale, counts)
        n_structures = batch.graph.n_structures if counts is None else counts["structures"]
        penalties = self.config.penalties
        value = penalized(
            value, prediction, batch.graph, penalties, n_structures, batch.labels.charges
        )
        return value, {name: error.detach() for name, error in found.items()}

    def _count(self, loss: float, error_sums: list[float], n_structures: int) -> None:
        """Move on by one batch."""
        position = self.position
        ErrorSums(position.error_sums).add_numbers(error_sums)
        position.loss_sum += loss * n_structures
        position.structures += n_structures
        position.step += 1
        position.batch += 1

    def _finish_epoch(self) -> dict[str, Any]:
        """Return the errors of training in the epoch, and move on to the next."""
        position = self.position
        row: dict[str, Any] = {"epoch": position.epoch + 1, "step": position.step}
        row["lr"] = self.schedule.rate(max(0, position.step - 1))
        row["train_loss"] = position.loss_sum / position.structures
        row |= _prefixed("train", ErrorSums(position.error_sums).metrics())
        position.epoch += 1
        position.batch, position.structures, position.loss_sum = 0, 0, 0.0
        position.error_sums = {}
        return row

    def _validate(self) -> dict[str, float]:
        """Loss (with the weights of the end of the run) and error statistics of validation."""
        size = self.config.valid_batch_size or self.config.batch_size
        loss, sums, total = self.config.loss.at(1.0), ErrorSums(), 0.0
        counts = label_counts(self.valid)  # means are over the whole set, not over batches
        plan = self.team.share(batch_plan(len(self.valid), size))
        for batch in batches(self.valid, plan, self.device):
            value, found = self.engine.attempt(partial(self._loss, batch, loss, counts))
            sums.add(found)
            total += float(value.total.detach())
        total, *error_sums = self.team.add([total, *sums.numbers()])
        together = ErrorSums()
        together.add_numbers(error_sums)
        return {"loss": total, **together.metrics()}

    def _judge(self, row: dict[str, Any]) -> Iterator[Event]:
        """Validate, add the result to the row of the epoch, and compare it with the best one.

        Until every term is active the validation loss, which includes all of them, is not
        comparable; patience and plateau are left alone.
        """
        position, all_begun = self.position, self._all_terms_count()
        with self.average.applied():
            metrics = self._validate() if self.valid else {}
            row |= _prefixed("valid", metrics)
            loss = metrics.get("loss", row["train_loss"])
            if all_begun:
                self.schedule.observe(loss)
            if math.isfinite(loss) and (position.best_loss is None or loss < position.best_loss):
                position.best_loss, position.best_epoch = loss, position.epoch
                position.bad_validations = 0
                weights = self.potential.named_parameters()
                self.best = {key: weight.detach().clone() for key, weight in weights}
                yield Improved(metrics)
                return
        position.bad_validations += all_begun

    def _stops(self) -> bool:
        """Whether validation has not improved for too long; the run is then finished."""
        patience = self.config.patience
        stops = patience is not None and self.position.bad_validations >= patience
        self.position.finished |= stops
        return stops

    def _all_terms_count(self) -> bool:
        """Whether every term that counts at the end of the run counts by now."""
        loss = self.config.loss
        now, end = loss.at(self.position.step / self.schedule.n_steps), loss.at(1.0)
        return all(getattr(now, name).weight for name in LABELS if getattr(end, name).weight)

    def use_best(self) -> None:
        """Give the potential the best weights."""
        copy_weights(self.best, self.potential)

    def state(self) -> State:
        """Everything needed to go on, for `restore`."""
        tensors, groups = pack_optimizer(self.optimizer)
        kinds: dict[str, dict[str, torch.Tensor]] = {
            "weights": dict(self.potential.named_parameters()),
            "average": self.average.weights,
            "best": self.best,
            "optimizer": tensors,
            "random": pack_random_state(),
        }
        document = {
            "position": asdict(self.position),
            "optimizer_groups": groups,
            "schedule": self.schedule.state(),
            "average_updates": self.average.n_updates,
            "compiled": self.engine.compiled is not None,
        }
        flat = {f"{kind}/{key}": t for kind, found in kinds.items() for key, t in found.items()}
        return State(flat, document)

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        kinds: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in state.tensors.items():
            kind, _, key = name.partition("/")
            kinds.setdefault(kind, {})[key] = tensor
        document = state.document
        copy_weights(kinds["weights"], self.potential)
        for target, kind in ((self.average.weights, "average"), (self.best, "best")):
            for key, tensor in kinds[kind].items():
                target[key].copy_(tensor)
        optimizer = kinds.get("optimizer", {})
        unpack_optimizer(self.optimizer, optimizer, document["optimizer_groups"])
        self.random_state = kinds["random"]
        if not document["compiled"]:  # not at all, or given up
            self.engine.compiled = None
        self.schedule.restore(document["schedule"])
        self.average.n_updates = document["average_updates"]
        self.position = Position(**document["position"])


def _prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    """Put the role of a set of structures before the names of its metrics."""
    return {f"{prefix}_{name}": value for name, value in metrics.items()}


def _due(count: int, interval: int) -> bool:
    """Whether something that happens every `interval` counts (0: never) happens at this one."""
    return interval > 0 and count % interval == 0
