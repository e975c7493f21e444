"""The model of a calculator: loaded or copied for inference, and its record in files."""

import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from ase.calculators.calculator import InputError

from phicalc.card import ModelCard
from phicalc.checkpoint import load_model, model_digest, resolve_device, resolve_dtype
from phicalc.electrostatics import CoulombSettings
from phicalc.inference.domain import domain_of
from phicalc.inference.predictors import Predictor, predictor_for
from phicalc.inference.workspace import Workspace
from phicalc.potential import Potential

#: What a calculator takes for a model: a name, a folder, or a potential in memory.
Source = str | os.PathLike[str] | Potential


class LoadedModel(NamedTuple):
    """A model ready for inference."""

    source: Source
    """Where it came from; a potential in memory as a copy, since its owner may train it further."""
    potential: Potential
    card: ModelCard | None
    """None for a potential in memory."""
    predictor: Predictor

    def properties(self, names: Iterable[str]) -> list[str]:
        """Return those of ASE's properties that the model has."""
        has_charges = self.potential.head.has_charges
        return [name for name in names if has_charges or name not in ("charges", "dipole")]

    def workspace(self, parameters: Mapping[str, Any]) -> Workspace:
        """Make a workspace as the parameters of a calculator want it."""
        accuracy = parameters["force_accuracy"]
        return Workspace(
            self.potential,
            neighbors=parameters["neighbors"],
            settings=None if accuracy is None else CoulombSettings(accuracy),
            predictor=self.predictor,
            domain=None if self.card is None else domain_of(self.card),
            uncertainty=parameters["uncertainty"],
        )


def load(source: Source, parameters: Mapping[str, Any]) -> LoadedModel:
    """Load a model, or copy a potential in memory, as the parameters of a calculator want it.

    Raises
    ------
    FileNotFoundError, ValueError
        If the model cannot be loaded.
    """
    device, dtype = parameters["device"], parameters["dtype"]
    card = None
    if isinstance(source, Potential):
        source = deepcopy(source)
        potential = deepcopy(source).to(device=resolve_device(device), dtype=resolve_dtype(dtype))
    else:
        potential, card = load_model(source, device=device, dtype=dtype)
    potential = potential.eval().requires_grad_(False)
    return LoadedModel(source, potential, card, predictor_for(potential, parameters["compile"]))


def record_of_model(source: Source) -> str:
    """Return a model as trajectories record it: text only.

    Raises
    ------
    ase.calculators.calculator.InputError
        For a potential that is spread over several devices.
    """
    if not isinstance(source, Potential):
        return os.fspath(source)
    devices = sorted({str(parameter.device) for parameter in source.parameters()})
    if len(devices) > 1:
        raise InputError(
            f"the parameters of the potential are spread over {', '.join(devices)}: move it to "
            "one device first, potential.to(device)"
        )
    return f"potential in memory, sha256 {model_digest(source)}"
