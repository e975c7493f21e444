"""Settings of electrostatic sums, and the parameters chosen from them for one structure."""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from phicalc.schema import AtLeast, Between, Even, Positive, checked, settings

Method = Literal["auto", "direct", "ewald", "mesh"]

#: Mesh points along one lattice vector.
MeshPoints = Annotated[int, AtLeast(4), Even]

#: Range of force accuracies in eV/Å that double precision can deliver and that make sense.
ACCURACY_RANGE = (1e-12, 1.0)


@settings
@dataclass(frozen=True)
class CoulombSettings:
    """How to compute electrostatic sums; one number, `force_accuracy`, decides the rest.

    Explicit parameters are used as given; the others are chosen so that the force error stays below
    `force_accuracy`.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range, and for parameters of two methods
        at once.
    """

    force_accuracy: Annotated[float, Between(*ACCURACY_RANGE, unit="eV/Å")] = 1e-4
    """Largest root mean square error of the forces in eV/Å.

    Single components may err by more, up to about N^½ times as much for N atoms, and the strain
    derivative by several eV per atom for each eV/Å; `report` computes both errors for a structure.
    """
    method: Method = "auto"
    """"direct" (open structures only), "ewald", "mesh" or "auto": the cheapest of them."""
    splitting: Annotated[float, Positive] | None = None
    """Ewald parameter α in 1/Å."""
    real_cutoff: Annotated[float, Positive] | None = None
    """Cutoff of the pair sum in Å."""
    k_cutoff: Annotated[float, Positive] | None = None
    """Cutoff of the k vectors of an Ewald sum in 1/Å."""
    mesh: tuple[MeshPoints, MeshPoints, MeshPoints] | None = None
    """Mesh points along each axis of the shortest lattice vectors; even numbers from 4 up."""
    spline_order: Annotated[int, Between(3, 7)] | None = None
    """Order of the splines on the mesh, 3 to 7."""
    charge_scale: Annotated[float, Positive] = 1.0
    """Root mean square charge in e assumed for error estimates while the charges are unknown."""

    def __post_init__(self) -> None:
        """Check every field, then that the parameters belong to one method."""
        checked(self)
        for_mesh = self.mesh is not None or self.spline_order is not None
        if for_mesh and (self.method not in ("auto", "mesh") or self.k_cutoff is not None):
            raise ValueError(
                "mesh and spline_order are for method='mesh', and k_cutoff is for "
                f"method='ewald'; got method={self.method!r}, k_cutoff={self.k_cutoff}"
            )

    @property
    def intended_method(self) -> Method:
        """`method`, or the one that the explicit parameters imply when it is "auto"."""
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
