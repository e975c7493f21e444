"""The reference calculator is looked at before labels are spent on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk

from phicalc.improvement.teacher import examine
from phicalc.labelling import CalculatorSpec

from .references import chain, springs

HARTREE = 27.2114
EMT = CalculatorSpec("ase.calculators.emt:EMT")


def look(spec: CalculatorSpec, folder: Path, structures=None):
    frames = folder / "reference.extxyz"
    return examine(structures or [chain()], spec, frames, workers=1, timeout=None)


def test_good_calculators_pass(tmp_path: Path) -> None:
    verdict = look(springs(), tmp_path)
    assert verdict.ratio == pytest.approx(1.0, abs=1e-3)
    assert 40.0 < verdict.stiffness < 60.0  # of one spring, and a part of another
    assert not verdict.warning
    (tmp_path / "emt").mkdir()
    crystal = bulk("Cu", a=3.7, cubic=True)
    crystal.positions[0] += 0.1
    verdict = look(EMT, tmp_path / "emt", [Atoms("Cu"), crystal])
    assert verdict.ratio == pytest.approx(1.0, abs=0.02)
    assert not verdict.warning


@pytest.mark.parametrize(
    ("arguments", "guess"),
    [
        ({"energy_unit": HARTREE}, "energies in Hartree beside forces in eV/Å"),
        ({"energy_unit": 1 / 23.0605}, "energies in kcal/mol beside forces in eV/Å"),
        ({"force_unit": HARTREE / 0.529177}, "energies in eV beside forces in Hartree/Bohr"),
        (
            {"energy_unit": HARTREE, "force_unit": HARTREE / 0.529177},
            "energies and forces in atomic units",
        ),
        ({"force_unit": -1.0}, "gradients in place of forces"),
        ({"energy_unit": 3.0}, "a ratio of 0.333. Labels"),
    ],
)
def test_wrong_units_are_named(arguments, guess, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are not the derivatives of its energies") as error:
        look(springs(**arguments), tmp_path)
    assert guess in str(error.value)


@pytest.mark.parametrize(("unit", "guess"), [(HARTREE, "Hartree"), (1 / 23.06, "kcal/mol")])
def test_a_unit_that_both_share_is_suspected(unit, guess, tmp_path: Path) -> None:
    verdict = look(springs(energy_unit=unit, force_unit=unit), tmp_path)
    assert verdict.ratio == pytest.approx(1.0, abs=1e-3)
    assert guess in verdict.warning


def test_structures_without_pairs_say_nothing(tmp_path: Path) -> None:
    assert look(springs(), tmp_path, [Atoms("N")]) == (None, None, "")
