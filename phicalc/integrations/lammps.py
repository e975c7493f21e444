"""Forces for LAMMPS: its own dynamics, fixes and output, driven through ``fix external``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers
from jaxtyping import Float64, Int

#: Fix through which LAMMPS asks for forces.
FIX = "phicalc"


@contextmanager
def attach(
    engine: Any,
    calculator: Calculator,
    elements: Sequence[str],
    *,
    virial: bool = True,
    charges: bool = False,
    **info: Any,
) -> Iterator[None]:
    """Let a calculator give LAMMPS energy, forces and virial, as long as the block lasts.

    >>> with attach(engine, PhiCalculator("water"), ["O", "H"]):  # doctest: +SKIP
    ...     engine.commands_list(["fix 1 all nve", "run 1000"])

    They are added to those of LAMMPS' own pair style (``pair_style zero 5.0`` has none), and are in
    its potential energy (``pe``), pressure, minimiser and barostats. Where LAMMPS runs in several
    processes (``mpirun``, with mpi4py), the first of them computes, since the potential needs all
    atoms at once; the others wait for their forces.

    Parameters
    ----------
    engine
        ``lammps.lammps`` with ``units metal`` (eV, Å, ps) and a box with atoms.
    calculator
        Any ASE calculator.
    elements
        Symbol of each atom type, in the order of the types.
    virial
        Compute the virial too, in boxes periodic along three axes; without it the pressure of
        LAMMPS is that of an ideal gas.
    charges
        Write the charges of every step into LAMMPS' own (``q``), for its dumps and computes. Its
        pair style must not use them: they are in our energy already.
    **info
        What the calculator looks for in ``atoms.info``, such as ``charge=1``.

    Raises
    ------
    ValueError
        If the units, the elements or the atom style do not suit, or several processes run without
        mpi4py.
    Exception
        At the end of the block: what the calculator raised. LAMMPS itself only stops early then.
    """
    _check_engine(engine, elements, charges)
    coupling = _Coupling(engine, calculator, elements, virial, charges, info)
    engine.command(f"fix {FIX} all external pf/callback 1 1")
    try:
        engine.command(f"fix_modify {FIX} energy yes virial yes")
        engine.set_fix_external_callback(FIX, coupling.fill)
        yield
    finally:
        engine.command(f"unfix {FIX}")
        if coupling.failure is not None:
            raise coupling.failure


class _Results(NamedTuple):
    """Of all atoms in the order of their ids, in the units of LAMMPS."""

    tags: Int[np.ndarray, " n_atoms"]
    energy: float
    forces: Float64[np.ndarray, "n_atoms 3"]
    virial: list[float] | None
    charges: Float64[np.ndarray, " n_atoms"] | None


class _Coupling:
    """What LAMMPS calls for forces in each step, in all of its processes.

    Parameters
    ----------
    engine, calculator, elements, virial, charges, info
        As of `attach`.
    """

    def __init__(
        self,
        engine: Any,
        calculator: Calculator,
        elements: Sequence[str],
        virial: bool,
        charges: bool,
        info: dict[str, Any],
    ):
        self.engine, self.calculator, self.info = engine, calculator, info
        self.numbers = np.array([atomic_numbers[symbol] for symbol in elements])
        self.virial, self.charges = virial, charges
        self.ranks = _ranks(engine)
        self.failure: BaseException | None = None

    def fill(self, _: Any, step: int, n_local: int, tags: Any, positions: Any, forces: Any) -> None:
        """Fill LAMMPS' array of forces; ctypes would swallow an error, so LAMMPS is stopped."""
        tags, positions = np.ravel(tags)[:n_local], np.asarray(positions)[:n_local]
        types = np.asarray(self.engine.numpy.extract_atom("type"))[:n_local]
        parts = self.ranks.gather((tags, types, positions))
        found = self.ranks.bcast(None if parts is None else self.results(parts))
        if isinstance(found, BaseException):
            forces[:], self.failure = 0, found
            self.engine.force_timeout()
        else:
            self.hand_over(found, np.searchsorted(found.tags, tags), forces)

    def results(self, parts: Sequence[tuple[Any, Any, Any]]) -> _Results | BaseException:
        """Return what the calculator finds for the atoms of all processes, or its error."""
        try:
            tags, types, positions = map(np.concatenate, zip(*parts, strict=True))
            order = np.argsort(tags)  # the calculator sees atoms in the order of their ids
            atoms = self.structure(types[order], positions[order])
            whole = self.virial and atoms.pbc.all()
            virial = _virial(atoms) if whole else None  # first: the same evaluation gives the rest
            energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
            charges = atoms.get_charges() if self.charges else None
            return _Results(tags[order], energy, forces, virial, charges)
        except BaseException as error:
            return error

    def structure(
        self, types: Int[np.ndarray, " n_atoms"], positions: Float64[np.ndarray, "n_atoms 3"]
    ) -> Atoms:
        """Present state of LAMMPS."""
        low, high, xy, yz, xz, periodicity, _ = self.engine.extract_box()
        lx, ly, lz = np.subtract(high, low)
        cell = [[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]]
        pbc = np.array(periodicity, dtype=bool)
        atoms = Atoms(self.numbers[types - 1], positions, cell=cell, pbc=pbc)
        atoms.info, atoms.calc = self.info, self.calculator
        return atoms

    def hand_over(
        self,
        found: _Results,
        rows: Int[np.ndarray, " n_local"],
        forces: Float64[np.ndarray, "n_local 3"],
    ) -> None:
        """Give LAMMPS the results of the atoms of this process, and those of the whole."""
        forces[: len(rows)] = found.forces[rows]
        self.engine.fix_external_set_energy_global(FIX, found.energy)
        if found.virial is not None:
            self.engine.fix_external_set_virial_global(FIX, found.virial)
        if found.charges is not None:
            self.engine.numpy.extract_atom("q")[: len(rows)] = found.charges[rows]


class _Alone:
    """What of mpi4py's communicators is needed, for one process."""

    def gather(self, part: Any) -> list[Any]:
        """Return the parts of all processes in the first, and nothing in the others."""
        return [part]

    def bcast(self, value: Any) -> Any:
        """Return what the first process has."""
        return value


def _ranks(engine: Any) -> Any:
    """Return the communicator of the processes of LAMMPS."""
    processes = engine.extract_setting("world_size")
    if processes == 1:
        return _Alone()
    try:
        from mpi4py import MPI
    except ImportError as problem:
        raise ValueError(f"LAMMPS in {processes} processes needs mpi4py: {problem}") from problem
    return MPI.COMM_WORLD


def _check_engine(engine: Any, elements: Sequence[str], charges: bool) -> None:
    """Refuse what would give wrong numbers."""
    units = engine.extract_global("units")
    if units != "metal":
        raise ValueError(f"LAMMPS must use `units metal` (eV, Å, ps), got {units!r}")
    types = engine.extract_setting("ntypes")
    if types != len(elements):
        raise ValueError(
            f"elements must name each of the {types} atom types of LAMMPS, got {list(elements)}"
        )
    unknown = [symbol for symbol in elements if symbol not in atomic_numbers]
    if unknown:
        raise ValueError(f"elements must be chemical symbols, got {unknown}")
    if charges and not engine.extract_setting("q_flag"):
        raise ValueError("charges=True needs an atom style with charges, such as `charge`")


def _virial(atoms: Atoms) -> list[float]:
    """Virial ``−V·stress`` in eV, in LAMMPS' order xx, yy, zz, xy, xz, yz."""
    xx, yy, zz, yz, xz, xy = -atoms.get_volume() * atoms.get_stress()
    return [float(value) for value in (xx, yy, zz, xy, xz, yz)]
