"""The output folder of a training run: which files it holds and how they are kept consistent."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phicalc.locks import file_lock
from phicalc.schema import differences, dump_yaml
from phicalc.state import State, read_state, write_atomically, write_state
from phicalc.training.config import RESOLVED, TrainingConfig, config_from_dict
from phicalc.upgrades import with_sections

#: Settings in which a continued run may differ: they do not touch the numbers.
_FREE = ("output", "threads")


def _upgraded(state: State) -> State:
    """Return a state with the settings of the model in sections, which once were flat."""
    document = dict(state.document)
    document["config"] = {
        **document["config"], "model": with_sections(document["config"]["model"])
    }  # fmt: skip
    document["potential"] = with_sections(document["potential"])
    return State(state.tensors, document)


class RunFolder:
    """Files of one run.

    ``config.yaml`` resolved settings; ``metrics.jsonl`` one line per epoch; ``state.safetensors``
    everything needed to go on; ``model/`` the best model so far; ``metrics.json``, ``parity.png``
    and ``loss.png`` at the end; ``.lock`` the process that runs, or ran, here.

    Parameters
    ----------
    path
        The folder; it is made if there is none.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / RESOLVED
        self.history = self.path / "metrics.jsonl"
        self.state = self.path / "state.safetensors"
        self.model = self.path / "model"
        self.metrics = self.path / "metrics.json"
        self.parity = self.path / "parity.png"
        self.curves = self.path / "loss.png"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and keep other runs out of it inside the block.

        Raises
        ------
        RuntimeError
            If a run is going on in the folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with file_lock(self.path / ".lock", self.path):
            yield

    def open(self, config: TrainingConfig, *, write: bool = True) -> State | None:
        """Make the folder (if `write`), or return the state of the run it already holds.

        Raises
        ------
        ValueError
            When the folder holds a run with other settings.
        """
        state = _upgraded(read_state(self.state)) if self.state.exists() else None
        if state is not None:
            self._check_same(state.document["config"], config.to_dict())
        if write:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.config, dump_yaml(config.to_dict()).encode())
        return state

    def _check_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Refuse to continue a run with other settings."""
        # read anew, so that settings which did not exist then get the values they stood for
        changed = differences(config_from_dict(before).to_dict(), now, skip=_FREE)
        if changed:
            raise ValueError(
                f"{self.path} holds a run with other settings ({'; '.join(changed)}). Choose "
                "another output folder, or the same settings to continue that run, or remove "
                f"{self.state.name} to start anew"
            )

    def save(self, state: State) -> None:
        """Replace the saved state."""
        write_state(self.state, state)

    def append(self, row: dict[str, Any]) -> None:
        """Add one epoch to the history; it reaches the disk before the state that follows it."""
        with self.history.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def read_history(self) -> list[dict[str, Any]]:
        """Rows of the history; a last line cut off by a kill is left out."""
        rows = []
        if self.history.exists():
            for line in self.history.read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return rows

    def cut_history(self, epochs: int) -> None:
        """Keep the first `epochs` epochs of the history: those that the saved state has seen."""
        kept = [row for row in self.read_history() if row["epoch"] <= epochs]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_atomically(self.history, text.encode())
