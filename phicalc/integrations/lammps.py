"""Forces for LAMMPS: its own dynamics, fixes and output, driven through ``fix external``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
    its potential energy (``pe``), pressure, minimiser and barostats. LAMMPS must run in one
    process, as the potential needs all atoms at once.

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
        If the units, the number of processes, the elements or the atom style do not suit.
    Exception
        At the end of the block: what the calculator raised. LAMMPS itself only stops early then.
    """
    _check_engine(engine, elements, charges)
    failures: list[BaseException] = []

    def fill(_: Any, step: int, n_local: int, tags: Any, positions: Any, forces: Any) -> None:
        """Fill LAMMPS' array of forces; ctypes would swallow an error, so LAMMPS is stopped."""
        try:
            order = np.argsort(np.ravel(tags))  # the calculator sees atoms in the order of ids
            atoms = _structure(engine, elements, positions, order)
            atoms.info, atoms.calc = info, calculator
            if virial and atoms.pbc.all():  # first: the same evaluation gives the rest
                engine.fix_external_set_virial_global(FIX, _virial(atoms))
            forces[order] = atoms.get_forces()
            engine.fix_external_set_energy_global(FIX, float(atoms.get_potential_energy()))
            if charges:
                engine.numpy.extract_atom("q")[order] = atoms.get_charges()
        except BaseException as error:
            forces[:] = 0
            failures.append(error)
            engine.force_timeout()

    engine.command(f"fix {FIX} all external pf/callback 1 1")
    try:
        engine.command(f"fix_modify {FIX} energy yes virial yes")
        engine.set_fix_external_callback(FIX, fill)
        yield
    finally:
        engine.command(f"unfix {FIX}")
        if failures:
            raise failures[0]


def _check_engine(engine: Any, elements: Sequence[str], charges: bool) -> None:
    """Refuse what would give wrong numbers."""
    units = engine.extract_global("units")
    if units != "metal":
        raise ValueError(f"LAMMPS must use `units metal` (eV, Å, ps), got {units!r}")
    processes = engine.extract_setting("world_size")
    if processes != 1:
        raise ValueError(
            f"LAMMPS must run in one process, got {processes}: start it without mpirun"
        )
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


def _structure(
    engine: Any,
    elements: Sequence[str],
    positions: Float64[np.ndarray, "n_atoms 3"],
    order: Int[np.ndarray, " n_atoms"],
) -> Atoms:
    """Present state of LAMMPS, its atoms in the given order."""
    low, high, xy, yz, xz, periodicity, _ = engine.extract_box()
    lx, ly, lz = np.subtract(high, low)
    numbers = np.array([atomic_numbers[symbol] for symbol in elements])
    types = np.asarray(engine.numpy.extract_atom("type"))[order]
    return Atoms(
        numbers[types - 1],
        positions[order],
        cell=[[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]],
        pbc=np.array(periodicity, dtype=bool),
    )


def _virial(atoms: Atoms) -> list[float]:
    """Virial ``−V·stress`` in eV, in LAMMPS' order xx, yy, zz, xy, xz, yz."""
    xx, yy, zz, yz, xz, xy = -atoms.get_volume() * atoms.get_stress()
    return [float(value) for value in (xx, yy, zz, xy, xz, yz)]
