"""A guess of the next charges of a simulation, from which iterative solvers start."""

import numpy as np
from ase import Atoms
from jaxtyping import Float

#: Polynomials through the last one, two and three values, at the next: latest value first.
_EXTRAPOLATIONS = {1: (1.0,), 2: (2.0, -1.0), 3: (3.0, -3.0, 1.0)}


class ChargeHistory:
    """Charges of the last structures, as long as they consist of the same atoms.

    In dynamics they lie on smooth curves, and a parabola through the last three meets the next ones
    several times closer than the last ones do. What the solver finds does not depend on the guess
    by more than its tolerance.
    """

    def __init__(self) -> None:
        self._kind: tuple[bytes, bytes] | None = None
        self._charges: list[np.ndarray] = []

    def add(self, atoms: Atoms, charges: Float[np.ndarray, " n_atoms"]) -> None:
        """Remember the charges (e) of a structure."""
        kind = _kind(atoms)
        if kind != self._kind:
            self._kind, self._charges = kind, []
        self._charges = [charges.copy(), *self._charges[: len(_EXTRAPOLATIONS) - 1]]

    def guess(self, atoms: Atoms) -> Float[np.ndarray, " n_atoms"] | None:
        """Charges (e) to expect; None for other atoms than before."""
        if not self._charges or _kind(atoms) != self._kind:
            return None
        factors = _EXTRAPOLATIONS[len(self._charges)]
        guess = np.zeros_like(self._charges[0])
        for factor, charges in zip(factors, self._charges, strict=True):
            guess += factor * charges
        return guess


def _kind(atoms: Atoms) -> tuple[bytes, bytes]:
    """Return what must stay the same: elements in their order, boundary conditions."""
    return atoms.numbers.tobytes(), atoms.pbc.tobytes()
