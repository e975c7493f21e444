"""Show that a verb computes: lines with its evaluations on the standard error."""

from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator

from phicalc.progress import Progress


def watch(calculator: Calculator, label: str) -> None:
    """Let a calculator print a line now and then with what it has computed.

    It can no longer be sent to other processes.
    """
    progress, compute, count = Progress(label), calculator.calculate, 0

    def calculate(*args: Any, **kwargs: Any) -> None:
        nonlocal count
        compute(*args, **kwargs)
        count += 1
        progress(_described(count, calculator.results))

    calculator.calculate = calculate  # type: ignore[method-assign]


def _described(count: int, results: dict[str, Any]) -> str:
    """Describe the last evaluation."""
    text = f"{count} evaluations"
    if "energy" in results:
        text += f", energy {results['energy']:.6f} eV"
    if "forces" in results:
        force = np.linalg.norm(results["forces"], axis=-1).max(initial=0.0)
        text += f", max |F| {force:.4f} eV/Å"
    return text
