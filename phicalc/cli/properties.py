"""Verbs for properties: ``eos``, ``elastic``, ``phonons``, ``vibrations``."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from phicalc.cli.arguments import add_structure, calculator_of, print_table
from phicalc.cli.watching import watch
from phicalc.properties import (
    PhononResult,
    elastic_constants,
    equation_of_state,
    phonons,
    vibrations,
)
from phicalc.structures import read_structures, write_text
from phicalc.units import WAVENUMBER_PER_THZ


def _add(verb: argparse.ArgumentParser, name: str, run: object) -> None:
    """Add a verb that takes one structure and writes a JSON file, maybe with a picture."""
    verb.set_defaults(run=run)
    add_structure(verb, "-1")
    verb.set_defaults(dtype="float64")  # differences of forces want the digits
    verb.add_argument("--output", default=f"{name}.json", help="results; a picture goes beside it")


def _structure(options: argparse.Namespace) -> Atoms:
    atoms = read_structures(options.input, options.index)[-1]
    atoms.calc = calculator_of(options)
    watch(atoms.calc, f"phicalc {options.verb}")
    return atoms


def _picture(options: argparse.Namespace) -> Path:
    return Path(options.output).with_suffix(".png")


def _save(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Write results as JSON: arrays as lists, units as the documentation of each result says."""
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in result.items()
    }
    print(f"written: {write_text(options.output, json.dumps(plain, indent=1) + chr(10))}")


def add_eos(verb: argparse.ArgumentParser) -> None:
    """Equation of state."""
    _add(verb, "eos", _eos)
    verb.add_argument("--strain", type=float, default=0.06, help="largest change of the volume")
    verb.add_argument("--points", type=int, default=9, help="number of volumes")
    verb.add_argument("--relax", action="store_true", help="relax positions at each volume")


def _eos(options: argparse.Namespace) -> None:
    found = equation_of_state(
        _structure(options),
        strain=options.strain,
        n_points=options.points,
        relax=options.relax,
        picture=_picture(options),
    )
    print_table(
        {
            "volume": f"{found.volume:.4f} Å³ (lengths × {found.scale:.5f})",
            "energy": f"{found.energy:.6f} eV",
            "bulk modulus": f"{found.bulk_modulus:.2f} GPa",
            "fit": f"{found.residual:.3g} meV/atom off (root mean square)",
            "picture": str(_picture(options)),
        }
    )
    _save(options, found._asdict())


def add_elastic(verb: argparse.ArgumentParser) -> None:
    """Elastic constants."""
    _add(verb, "elastic", _elastic)
    verb.add_argument("--strain", type=float, default=0.005, help="largest strain")
    verb.add_argument("--clamped", action="store_true", help="do not relax the strained cells")
    verb.add_argument("--fmax", type=float, default=0.001, help="largest force at the end, eV/Å")


def _elastic(options: argparse.Namespace) -> None:
    found = elastic_constants(
        _structure(options), strain=options.strain, relax=not options.clamped, fmax=options.fmax
    )
    print("elastic constants (GPa), xx yy zz yz xz xy:")
    for line in found.stiffness:
        print("  " + "".join(f"{value:9.2f}" for value in line))
    bulk, shear = found.bulk_bounds, found.shear_bounds
    print_table(
        {
            "space group": f"{found.space_group}; averaging over it changed {found.asymmetry:.2g} "
            "GPa at most",
            "bulk modulus": f"{found.bulk_modulus:.2f} GPa ({bulk[0]:.2f} … {bulk[1]:.2f})",
            "shear modulus": f"{found.shear_modulus:.2f} GPa ({shear[0]:.2f} … {shear[1]:.2f})",
            "Young's modulus": f"{found.young_modulus:.2f} GPa",
            "Poisson's ratio": f"{found.poisson_ratio:.3f}",
            "mechanically": "stable" if found.stable else "UNSTABLE: a strain lowers the energy",
        }
    )
    _save(options, found._asdict())


def add_phonons(verb: argparse.ArgumentParser) -> None:
    """Phonons."""
    _add(verb, "phonons", _phonons)
    verb.add_argument(
        "--supercell", type=int, nargs=3, metavar=("A", "B", "C"), help="repeats (default: 10 Å)"
    )
    verb.add_argument("--delta", type=float, default=0.01, help="displacement in Å")
    verb.add_argument("--mesh", type=int, default=20, help="points along each axis, for the DOS")


def _phonons(options: argparse.Namespace) -> None:
    found = phonons(
        _structure(options),
        supercell=None if options.supercell is None else tuple(options.supercell),
        delta=options.delta,
        mesh=(options.mesh,) * 3,
        picture=_picture(options),
    )
    top = float(found.bands.max())
    print_table(
        {
            "displacements": str(found.n_displacements),
            "path": found.path.path,
            "highest": f"{top:.3f} THz ({top * WAVENUMBER_PER_THZ:.1f} cm⁻¹)",
            "lowest": f"{found.lowest:.3f} THz: {'stable' if found.stable else 'UNSTABLE'}",
            "optical modes": _optical_modes(found),
            "sum rule": f"acoustic modes at Γ were off by {found.sum_rule:.3g} THz",
            "picture": str(_picture(options)),
        }
    )
    points = {"path": found.path.path, "points": found.path.kpts}
    _save(options, {**found._asdict(), **points})


def _optical_modes(found: PhononResult) -> str:
    """Say what is known about longitudinal optical modes at Γ."""
    if found.longitudinal is not None:
        highest = float(found.longitudinal.max())
        return f"highest at Γ with LO–TO splitting: {highest:.3f} THz " + (
            f"({highest * WAVENUMBER_PER_THZ:.1f} cm⁻¹)"
        )
    if found.polar:
        return "polar crystal: the splitting of LO and TO modes at Γ is not included"
    return "complete at Γ"


def add_vibrations(verb: argparse.ArgumentParser) -> None:
    """Vibrations of molecules."""
    _add(verb, "vibrations", _vibrations)
    verb.add_argument("--delta", type=float, default=0.005, help="displacement in Å")


def _vibrations(options: argparse.Namespace) -> None:
    atoms = _structure(options)
    has_dipole = "dipole" in atoms.calc.implemented_properties and not atoms.pbc.any()
    picture = _picture(options) if has_dipole else None
    found = vibrations(atoms, delta=options.delta, picture=picture)
    print(f"{'mode':>4} {'cm⁻¹':>10} {'km/mol':>10}")
    missing = np.full(len(found.frequencies), np.nan)
    strengths = missing if found.intensities is None else found.intensities
    for number, (frequency, strength) in enumerate(zip(found.frequencies, strengths, strict=True)):
        intensity = "–" if np.isnan(strength) else f"{strength:.2f}"
        print(f"{number:>4} {frequency:>10.1f} {intensity:>10}")
    largest = np.abs(found.rigid).max(initial=0.0)
    rows = {
        "zero-point energy": f"{found.zero_point_energy:.4f} eV",
        "imaginary": f"{found.n_imaginary} (0 at a minimum)",
        "left out": f"{len(found.rigid)} rigid motions, up to {largest:.1f} cm⁻¹",
    }
    print_table(rows | ({} if picture is None else {"picture": str(picture)}))
    _save(options, found._asdict())
