"""What predicts for whom: compiled functions on a CPU, recorded steps on a GPU."""

from typing import Protocol, runtime_checkable

from phicalc.captured import CapturedPredictor
from phicalc.compiled import BackgroundPredictor, CompiledPredictor, Mode
from phicalc.derivatives import Prediction
from phicalc.graph import AtomicGraph
from phicalc.potential import Potential


@runtime_checkable
class Predictor(Protocol):
    """`phicalc.derivatives.predict` for one potential."""

    @property
    def mesh_above(self) -> int:
        """Number of atoms of the largest structure to plan without a mesh."""

    @property
    def planning(self) -> Potential:
        """The potential on the CPU, which prepares structures."""

    def __call__(self, graph: AtomicGraph, *, stress: bool = False) -> Prediction:
        """Return energies (eV), forces (eV/Å) and so on of a batch prepared on the CPU."""


def predictor_for(potential: Potential, mode: Mode = False) -> Predictor:
    """Return what predicts fastest where a potential is.

    Parameters
    ----------
    potential
        In evaluation mode; its weights must not change any more.
    mode
        Whether to compile or record: True, "auto", "background" or False, see `CompiledPredictor`,
        `BackgroundPredictor` and `CapturedPredictor`.
    """
    if potential.device.type == "cuda":  # no recording unasked for, until many GPUs have tried it
        return CapturedPredictor(potential, mode if mode is True else False)
    if mode == "background" and potential.device.type == "cpu":
        return BackgroundPredictor(potential)
    return CompiledPredictor(potential, mode)
