"""Motions of a whole structure that cost no energy: translations, rotations, under constraints."""

import numpy as np
from ase import Atoms
from jaxtyping import Float64
from numpy import ndarray

#: Å: if no atom is farther than this from the axis, a molecule may be linear.
NEARLY_LINEAR = 0.2
#: Å: atoms this close to an axis lie on it.
ON_AXIS = 1e-5
#: Ratio of curvatures above which a nearly linear molecule is a bent picture of a linear one.
LINEAR_RATIO = 0.25
#: Singular values below this, of directions of unit length, are zero.
_ZERO = 1e-4


def allowed_motions(atoms: Atoms) -> Float64[ndarray, "n_coordinates n_free"]:
    """Return an orthonormal basis of the displacements that the constraints allow.

    Coordinates are those of atom 0, x, y and z, of atom 1, and so on.

    Raises
    ------
    ValueError
        For constraints that are not linear in the displacements, such as fixed bond lengths.
    """
    basis = np.eye(3 * len(atoms))
    for constraint in atoms.constraints:
        projector = _projector(constraint, atoms)
        values, vectors = np.linalg.eigh(basis.T @ projector @ basis)
        basis = basis @ vectors[:, values > 1 - _ZERO]
    return basis


def _projector(constraint: object, atoms: Atoms) -> Float64[ndarray, "n_coordinates n_coordinates"]:
    """Return the projector on what a linear constraint leaves of the forces."""
    columns = []
    for unit in np.eye(3 * len(atoms)):
        forces = unit.reshape(-1, 3).copy()
        constraint.adjust_forces(atoms, forces)  # type: ignore[attr-defined]
        columns.append(forces.ravel())
    projector = np.array(columns).T
    if not np.allclose(projector, projector.T) or not np.allclose(projector @ projector, projector):
        raise ValueError(
            f"vibrations under the constraint {type(constraint).__name__} are not defined here: "
            "use constraints that fix atoms, lines or planes (FixAtoms, FixCartesian, FixedLine, "
            "FixedPlane), or remove it"
        )
    return projector


def rigid_motions(
    atoms: Atoms,
    hessian: Float64[ndarray, "n_coordinates n_coordinates"],
    field: Float64[ndarray, "3"],
) -> Float64[ndarray, "n_coordinates n_rigid"]:
    """Return translations and rotations of the whole structure, as columns of unit length.

    Rotations are those that leave periodic directions and the external field where they are. A
    nearly linear molecule may be bent for two reasons: because its minimum is bent, or because it
    is not quite at its linear minimum. At a bent minimum a turn about the axis costs nothing; near
    a linear one it is a bending vibration, with the curvature of the same bend in its own plane.

    Parameters
    ----------
    atoms
        The structure; constraints are ignored.
    hessian
        Second derivatives of the energy in eV/Å².
    field
        External electric field in V/Å.
    """
    translations = np.tile(np.eye(3), (len(atoms), 1)) / np.sqrt(max(len(atoms), 1))
    arms = atoms.positions - atoms.get_center_of_mass()
    turns = [_turn(axis, arms, hessian) for axis in _rotation_axes(atoms, arms, field)]
    columns = [*translations.T, *(turn for turn in turns if turn is not None)]
    return np.array(columns).T


def _rotation_axes(
    atoms: Atoms, arms: Float64[ndarray, "n_atoms 3"], field: Float64[ndarray, "3"]
) -> Float64[ndarray, "n_axes 3"]:
    """Return the axes, of unit length, about which the structure may turn as a whole."""
    fixed = [*atoms.cell.array[atoms.pbc], *([field] if np.any(field) else [])]
    lengths = np.linalg.norm(fixed, axis=1) if fixed else np.empty(0)
    kept = [vector / length for vector, length in zip(fixed, lengths, strict=True) if length > 0]
    if kept and np.linalg.matrix_rank(kept, tol=1e-6) > 1:
        return np.empty((0, 3))
    if kept:
        return np.array(kept[:1])
    _, _, principal = np.linalg.svd(arms, full_matrices=True)
    return principal


def _turn(
    axis: Float64[ndarray, "3"],
    arms: Float64[ndarray, "n_atoms 3"],
    hessian: Float64[ndarray, "n_coordinates n_coordinates"],
) -> Float64[ndarray, " n_coordinates"] | None:
    """Return the rotation about an axis; None if it moves nothing or is a vibration."""
    turn, outward = np.cross(axis, arms), arms - np.outer(arms @ axis, axis)
    farthest = float(np.linalg.norm(outward, axis=1).max(initial=0.0))
    if farthest < ON_AXIS:
        return None
    across, along = (vectors.ravel() / np.linalg.norm(vectors) for vectors in (turn, outward))
    curvature, in_plane = across @ hessian @ across, along @ hessian @ along
    if farthest < NEARLY_LINEAR and abs(curvature) > LINEAR_RATIO * abs(in_plane):
        return None
    return across


def free_rigid_motions(
    rigid: Float64[ndarray, "n_coordinates n_rigid"],
    allowed: Float64[ndarray, "n_coordinates n_free"],
) -> Float64[ndarray, "n_coordinates n_common"]:
    """Return a basis, orthonormal, of the rigid motions that constraints allow."""
    basis, _ = np.linalg.qr(rigid)
    forbidden = basis - allowed @ (allowed.T @ basis)
    _, sizes, mixtures = np.linalg.svd(forbidden, full_matrices=False)
    return basis @ mixtures[sizes < _ZERO].T
