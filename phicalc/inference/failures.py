"""Errors of the layers below as those that ASE's users expect."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from ase.calculators.calculator import CalculationFailed, CalculatorError, InputError


@contextmanager
def ase_errors() -> Iterator[None]:
    """Turn errors inside the block into ASE's.

    Raises
    ------
    ase.calculators.calculator.InputError
        For a ``ValueError``: input that makes no sense.
    ase.calculators.calculator.CalculationFailed
        If memory ran out or a linear system could not be solved.
    """
    try:
        yield
    except CalculatorError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CalculationFailed(_out_of_memory(error)) from error
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        raise CalculationFailed(f"charge equilibration failed: {error}") from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # torch has no class of its own for it on the CPU
            raise
        raise CalculationFailed(_out_of_memory(error)) from error
    except ValueError as error:
        raise InputError(str(error)) from error


def _out_of_memory(error: Exception) -> str:
    """Say what helps."""
    advice = "use a smaller structure, dtype='float32' or device='cpu'"
    return f"out of memory: {advice} ({error})" if str(error) else f"out of memory: {advice}"
