"""What a user can say about an electrostatic sum, and what follows from it for one structure."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

Method = Literal["auto", "direct", "ewald", "mesh"]

#: Range of force accuracies in eV/Å that double precision can deliver and that make sense.
ACCURACY_RANGE = (1e-12, 1.0)


@dataclass(frozen=True)
class CoulombSettings:
    """How electrostatic sums are to be done; one number, `force_accuracy`, decides the rest.

    Parameters that are given explicitly are taken as they are; the others are chosen so that the
    force error stays below `force_accuracy`.
    """

    force_accuracy: float = 1e-4
    """Largest root mean square error of the forces in eV/Å."""
    method: Method = "auto"
    """"direct" (open structures only), "ewald", "mesh" or "auto": the cheapest of them."""
    splitting: float | None = None
    """Ewald parameter α in 1/Å."""
    real_cutoff: float | None = None
    """Cutoff of the pair sum in Å."""
    k_cutoff: float | None = None
    """Cutoff of the k vectors of an Ewald sum in 1/Å."""
    mesh: tuple[int, int, int] | None = None
    """Mesh points along each axis of the shortest lattice vectors; even numbers."""
    spline_order: int | None = None
    """Order of the splines on the mesh, 3 to 7."""
    charge_scale: float = 1.0
    """Root mean square charge in e by which errors are judged while the charges are unknown."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        low, high = ACCURACY_RANGE
        if not low <= self.force_accuracy <= high:
            raise ValueError(
                f"force_accuracy must lie between {low:g} and {high:g} eV/Å, "
                f"got {self.force_accuracy:g}"
            )
        if self.method not in ("auto", "direct", "ewald", "mesh"):
            raise ValueError(
                f"method must be 'auto', 'direct', 'ewald' or 'mesh', got {self.method!r}"
            )
        for name in ("splitting", "real_cutoff", "k_cutoff", "charge_scale"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if self.spline_order is not None and not 3 <= self.spline_order <= 7:
            raise ValueError(f"spline_order must be 3 to 7, got {self.spline_order}")
        if self.mesh is not None and (
            len(self.mesh) != 3 or min(self.mesh) < 4 or any(n % 2 for n in self.mesh)
        ):
            raise ValueError(f"mesh must be three even numbers from 4 up, got {self.mesh}")
        for_mesh = self.mesh is not None or self.spline_order is not None
        if for_mesh and (self.method not in ("auto", "mesh") or self.k_cutoff is not None):
            raise ValueError(
                "mesh and spline_order are for method='mesh', and k_cutoff is for "
                f"method='ewald'; got method={self.method!r}, k_cutoff={self.k_cutoff}"
            )

    @property
    def intended_method(self) -> Method:
        """`method`, or what the other parameters say when it is "auto"."""
        if self.method != "auto":
            return self.method
        if self.mesh is not None or self.spline_order is not None:
            return "mesh"
        return "ewald" if self.k_cutoff is not None else "auto"


class SumParameters(NamedTuple):
    """Parameters of the sum of one structure."""

    method: Literal["direct", "ewald", "mesh"]
    splitting: float
    """Ewald parameter α in 1/Å; 0 for a direct sum."""
    real_cutoff: float
    """Cutoff of the pair sum in Å."""
    k_cutoff: float
    """Cutoff of an Ewald sum in 1/Å."""
    mesh: tuple[int, int, int]
    """Mesh points; zeros without a mesh."""
    spline_order: int
    open_length: float
    """Length of the box along open axes in Å; 0 if there are none, or for a direct sum."""
