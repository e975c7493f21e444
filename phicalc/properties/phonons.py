"""Phonons of a crystal by finite displacements (phonopy): bands and density of states."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.dft.kpoints import BandPath
from jaxtyping import Float

from phicalc.hints import install_hint
from phicalc.pictures import BLUE, GREY, RED, new_figure
from phicalc.properties.start import need_crystal, prepare, warn_unrelaxed
from phicalc.structures import Structure, formula_of
from phicalc.units import COULOMB_CONSTANT, WAVENUMBER_PER_THZ

#: THz: smaller imaginary frequencies are noise around zero.
NOISE = 0.05
#: e: a compound whose atoms have smaller charges is not polar.
NEUTRAL = 0.05
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class PhononResult(NamedTuple):
    """Phonons of the primitive cell; frequencies in THz, imaginary ones negative."""

    path: BandPath
    """The way through the Brillouin zone of the primitive cell."""
    bands: Float[np.ndarray, "n_points n_bands"]
    """THz along the path, (n_points, n_bands)."""
    frequencies: Float[np.ndarray, " n"]
    """THz, of the density of states, (n,)."""
    density: Float[np.ndarray, " n"]
    """Modes per THz and primitive cell, (n,)."""
    lowest: float
    """Lowest frequency on the path and the mesh, in THz: below −0.05 the crystal is unstable."""
    sum_rule: float
    """Largest acoustic frequency (THz, absolute) at Γ before the sum rule was imposed."""
    n_displacements: int
    """Force evaluations."""
    polar: bool
    """Whether ions make longitudinal optical modes at Γ higher than these, which lack that part."""
    longitudinal: Float[np.ndarray, " n_bands"] | None = None
    """THz at Γ as it is approached along the first vector of the reciprocal cell, where the field
    of the ions lifts longitudinal optical modes; None without Born charges."""

    @property
    def stable(self) -> bool:
        """Whether no frequency is imaginary, apart from noise."""
        return self.lowest > -NOISE


def phonons(
    structure: Structure,
    calculator: Calculator | None = None,
    *,
    supercell: tuple[int, int, int] | None = None,
    delta: float = 0.01,
    mesh: tuple[int, int, int] = (20, 20, 20),
    n_points: int = 200,
    picture: str | Path | None = None,
) -> PhononResult:
    """Compute the phonons of a crystal.

    Displacements follow from the symmetry; the acoustic sum rule is imposed on the force constants.
    The splitting of longitudinal and transverse optical modes (LO–TO) near Γ is included if the
    calculator has Born charges and a dielectric tensor of the primitive cell; else it is left out,
    with a warning for polar crystals.

    Parameters
    ----------
    structure
        Crystal with relaxed positions and cell; left alone.
    calculator
        Any ASE calculator; that of the atoms by default. Use ``dtype="float64"`` with ours.
    supercell
        Repeats along the three axes; by default as many as give 10 Å.
    delta
        Displacement in Å.
    mesh
        Points of the Brillouin zone for the density of states.
    n_points
        Points along the path.
    picture
        File for a picture of bands and density of states.

    Raises
    ------
    ImportError
        Without phonopy (the extra ``phonons``).
    ValueError
        If the structure is no crystal, or its atoms do not feel each other.

    References
    ----------
    Togo and Tanaka, Scripta Materialia 108, 1 (2015), doi:10.1016/j.scriptamat.2015.07.021; for
    the non-analytical term Gonze and Lee, Phys. Rev. B 55, 10355 (1997).
    """
    atoms = prepare(structure, calculator, "phonons")
    need_crystal(atoms, "phonons")
    if not delta > 0:
        raise ValueError(f"delta must be positive (Å), got {delta}")
    warn_unrelaxed(atoms, "phonons")
    engine = _engine(atoms, supercell)
    engine.generate_displacements(distance=delta)
    engine.forces = [_forces(cell, atoms) for cell in engine.supercells_with_displacements]
    engine.produce_force_constants()
    sum_rule = _impose_sum_rule(engine)
    primitive = _primitive(engine)
    longitudinal = _include_fields(engine, primitive, atoms)
    path = primitive.cell.bandpath(npoints=n_points)
    engine.run_qpoints(path.kpts)
    bands = np.array(engine.qpoints.frequencies)
    engine.run_mesh(mesh, is_gamma_center=True)
    engine.run_total_dos()
    dos = engine.total_dos
    lowest = float(min(bands.min(), engine.mesh.frequencies.min()))
    result = PhononResult(
        path=path,
        bands=bands,
        frequencies=np.array(dos.frequency_points),
        density=np.array(dos.dos),
        lowest=lowest,
        sum_rule=sum_rule,
        n_displacements=len(engine.supercells_with_displacements),
        polar=longitudinal is None and _warn_if_polar(atoms),
        longitudinal=longitudinal,
    )
    if picture is not None:
        _draw(result, formula_of(primitive), Path(picture))
    return result


def _include_fields(
    engine: Any, primitive: Atoms, atoms: Atoms
) -> Float[np.ndarray, " n_bands"] | None:
    """Give Phonopy Born charges and ε∞, if there are any; return frequencies at Γ with them."""
    try:
        born = atoms.calc.get_born_effective_charges(primitive)
        dielectric = atoms.calc.get_dielectric_tensor(primitive)
    except (AttributeError, PropertyNotImplementedError):
        return None
    engine.nac_params = {"born": born, "dielectric": dielectric, "factor": COULOMB_CONSTANT}
    engine.run_qpoints([[0, 0, 0]], nac_q_direction=[1, 0, 0])
    return np.array(engine.qpoints.frequencies[0])


def _warn_if_polar(atoms: Atoms) -> bool:
    """Return whether a crystal consists of ions, and warn of what its phonons lack."""
    if len(set(atoms.numbers)) < 2:
        return False
    has_charges = "charges" in atoms.calc.implemented_properties
    if has_charges and np.abs(atoms.get_charges()).max() < NEUTRAL:
        return False
    warnings.warn(
        "phonons: this crystal is polar, and the splitting of longitudinal and transverse optical "
        "modes at Γ (LO–TO) is not included: longitudinal ones are too low near Γ. It needs a "
        "model with Born charges and a dielectric tensor (head 'acks2')",
        UserWarning,
        stacklevel=3,
    )
    return True


def _engine(atoms: Atoms, supercell: tuple[int, int, int] | None) -> Any:
    """Make the Phonopy object, or say how to get it."""
    try:
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms
        from phonopy.structure.cells import guess_primitive_matrix
    except ImportError as error:
        raise ImportError(f"phonons need phonopy ({error}): {install_hint('phonons')}") from error
    if supercell is None:
        repeats = np.ceil(10.0 / atoms.cell.lengths() - 1e-6).astype(int)
        supercell = (int(repeats[0]), int(repeats[1]), int(repeats[2]))
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
        masses=atoms.get_masses(),
    )
    primitive = guess_primitive_matrix(cell)
    return Phonopy(cell, supercell_matrix=np.diag(supercell), primitive_matrix=primitive)


def _forces(cell: Any, atoms: Atoms) -> Float[np.ndarray, "n_atoms 3"]:
    """Compute the forces on a displaced supercell, in eV/Å."""
    displaced = Atoms(
        cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True,
        calculator=atoms.calc,
    )  # fmt: skip
    displaced.info = dict(atoms.info)
    return displaced.get_forces()


def _impose_sum_rule(engine: Any) -> float:
    """Make the crystal free to move as a whole; return by how much it was not, in THz."""
    engine.run_qpoints([[0, 0, 0]])
    before = float(np.sort(np.abs(engine.qpoints.frequencies[0]))[2])  # the three acoustic ones
    engine.symmetrize_force_constants()
    constants = engine.force_constants
    if not (np.isfinite(constants).all() and constants.any()):
        what = "zero" if np.isfinite(constants).all() else "no numbers"
        raise ValueError(
            f"phonons: the force constants are {what}. Check the cell (Å), and whether atoms are "
            "within the reach of the calculator"
        )
    return before


def _primitive(engine: Any) -> Atoms:
    """Make the primitive cell that Phonopy found."""
    cell = engine.primitive
    return Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)


def _to_wavenumbers(frequencies: Any) -> Any:
    """Frequencies in cm⁻¹ of those in THz, for the axis on the right."""
    return frequencies * WAVENUMBER_PER_THZ


def _from_wavenumbers(frequencies: Any) -> Any:
    """Frequencies in THz of those in cm⁻¹."""
    return frequencies / WAVENUMBER_PER_THZ


def _draw(result: PhononResult, name: str, path: Path) -> None:
    figure, (bands, dos) = new_figure(1, 2, width=4.6, height=4.6)
    grid = bands.get_gridspec()
    assert grid is not None  # the figure was made as a grid
    grid.set_width_ratios([3, 1])
    distances, ticks, labels = result.path.get_linear_kpoint_axis()
    breaks = np.flatnonzero(np.diff(distances) == 0) + 1  # where the path goes on elsewhere
    for band in result.bands.T:
        bands.plot(np.insert(distances, breaks, np.nan), np.insert(band, breaks, np.nan),
                   color=BLUE, linewidth=1.3)  # fmt: skip
    names: dict[float, list[str]] = {}
    for tick, label in zip(ticks, labels, strict=True):
        bands.axvline(tick, color=GREY, linewidth=0.8)
        names.setdefault(float(tick), []).append(label.replace("G", "Γ").translate(SUBSCRIPTS))
    bands.set_xticks(list(names), ["|".join(texts) for texts in names.values()])
    bands.set_xlim(distances[0], distances[-1])
    bands.set_ylabel("frequency (THz)")
    dos.fill_betweenx(result.frequencies, result.density, color=BLUE, alpha=0.2, linewidth=0)
    dos.plot(result.density, result.frequencies, color=BLUE, linewidth=1.3)
    dos.set_xlim(left=0)
    dos.set_xlabel("modes per THz")
    top, bottom = 1.06 * float(np.max(result.bands)), min(1.06 * result.lowest, 0.0)
    for axes in (bands, dos):
        axes.axhline(0, color=RED if result.lowest < -NOISE else GREY, linewidth=0.9)
        axes.set_ylim(bottom, top)
    dos.tick_params(axis="y", labelleft=False)
    right = dos.secondary_yaxis("right", functions=(_to_wavenumbers, _from_wavenumbers))
    right.set_ylabel("wavenumber (cm⁻¹)")
    state = "stable" if result.stable else f"unstable: down to {result.lowest:.2f} THz"
    figure.suptitle(f"phonons of {name}: {state}", fontsize=12, fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
