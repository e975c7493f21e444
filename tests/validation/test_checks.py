"""Every check fails on the fault it is for, and passes without it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from phicalc.inference.domain import Domain
from phicalc.validation import ValidationConfig, all_checks, perform, subject_of_calculator
from phicalc.validation.check import Context
from phicalc.validation.checks import drift

from .toys import Pairs

CHECKS = all_checks()
ISOLATED = Domain("toy", periodic=False)


def run(name: str, calculator, elements, folder, structures=(), domain=None, **settings):
    """Outcome of one check."""
    subject = subject_of_calculator(calculator, elements, structures, domain)
    return perform(CHECKS[name], subject, Context(ValidationConfig(**settings), folder))


def figure(outcome, part: str):
    """Return the only figure whose name holds a text."""
    (found,) = [each for each in outcome.figures if part in each.name]
    return found


CRYSTAL = bulk("Cu", a=3.75, cubic=True) * (1, 1, 2)
CRYSTAL.positions += 0.02 * np.sin(np.arange(24)).reshape(8, 3)
NITROGEN = Atoms("N3", [[0, 0, 0], [1.45, 0, 0], [0.6, 1.3, 0.1]])

#: Check, fault, the figure that must fail, and the structures it is measured with.
FAULTS = [
    ("walls", "hole", "pairs with a hole", ()),
    ("walls", "hole", "deepest fall", ()),
    ("symmetry", "rotation", "rotation", (CRYSTAL,)),
    ("symmetry", "permutation", "permutation", (CRYSTAL,)),
    ("symmetry", "translation", "translation", (CRYSTAL,)),
    ("symmetry", "size", "extensivity", (CRYSTAL,)),
    ("symmetry", "curl", "forces are derivatives", (CRYSTAL,)),
    ("symmetry", "stress", "stress is a derivative", (CRYSTAL,)),
    ("symmetry", "charges", "sum of charges", (CRYSTAL,)),
    ("cutoff", "kink", "largest jump", ()),
    ("cutoff", "jump", "largest jump", ()),
    ("fragments", "size", "does not add up", (NITROGEN,)),
    ("fragments", "leak", "charge that leaks", (NITROGEN,)),
    ("compression", "hole", "Cu8 (periodic) at", (CRYSTAL,)),
]


@pytest.mark.parametrize(("name", "fault", "part", "structures"), FAULTS)
def test_a_fault_is_found(name, fault, part, structures, tmp_path):
    outcome = run(name, Pairs(fault), ("Cu", "N"), tmp_path, structures)
    assert outcome.status == "failed"
    assert not figure(outcome, part).passed


@pytest.mark.parametrize("name", sorted({fault[0] for fault in FAULTS}))
def test_a_sound_potential_passes(name, tmp_path):
    outcome = run(name, Pairs(), ("Cu", "N"), tmp_path, (CRYSTAL, NITROGEN))
    assert outcome.status == "passed", outcome
    assert outcome.seconds > 0


@pytest.mark.parametrize("fault", ["", "curl"])
def test_drift_of_forces_that_do_not_conserve_energy(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "DURATION", 150.0)  # fs
    cluster = Atoms("Cu4", 2.3 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    outcome = run("drift", Pairs(fault, 0.5), ("Cu",), tmp_path, (cluster,), ISOLATED)
    assert outcome.status == ("failed" if fault else "passed"), outcome


@pytest.mark.parametrize("name", list(CHECKS))
def test_an_error_of_the_calculator_is_a_failure_with_the_reason(name, tmp_path):
    outcome = run(name, Pairs("crash"), ("Cu", "N"), tmp_path, (CRYSTAL, NITROGEN))
    assert outcome.status in ("failed", "not applicable")
    assert "a defect of the calculator" in outcome.reason or outcome.status == "not applicable"


@pytest.mark.parametrize("name", ["walls", "symmetry", "compression", "fragments", "cutoff"])
def test_energies_that_are_not_numbers_are_a_failure(name, tmp_path):
    outcome = run(name, Pairs("nan"), ("Cu", "N"), tmp_path, (CRYSTAL, NITROGEN))
    assert outcome.status == "failed"


@pytest.mark.parametrize(("depth", "status"), [(9.0, "passed"), (0.5, "failed")])
def test_bonds_that_hardly_bind(depth, status, tmp_path):
    outcome = run("bonds", Pairs(depth=depth), ("N",), tmp_path, domain=ISOLATED)
    assert outcome.status == status
    assert figure(outcome, "N2 pulled").passed == (status == "passed")


class Turning(Pairs):
    """A barrier for turns about the bond between atoms 0 and 1, and no force."""

    def __init__(self, barrier: float) -> None:
        super().__init__()
        self.barrier = barrier

    def energy_of(self, atoms: Atoms) -> float:
        angle = np.radians(atoms.get_dihedral(2, 0, 1, 4))
        return self.barrier * np.sin(angle) ** 2

    def _forces(self, atoms: Atoms) -> np.ndarray:
        return np.zeros((len(atoms), 3))


@pytest.mark.parametrize(
    ("barrier", "status"), [(2.3, "passed"), (0.17, "failed"), (9.0, "failed")]
)
def test_torsions_of_a_double_bond(barrier, status, tmp_path):
    outcome = run("torsions", Turning(barrier), ("C", "F"), tmp_path, domain=ISOLATED)
    assert outcome.status == status
    assert figure(outcome, "C2F4").value == pytest.approx(barrier, rel=1e-3)


@pytest.mark.parametrize(("width", "status"), [(2.7, "passed"), (1.3, "failed")])
def test_frequencies_of_soft_bonds(width, status, tmp_path):
    outcome = run("frequencies", Pairs(depth=9.9, width=width), ("N",), tmp_path, domain=ISOLATED)
    assert outcome.status == status, outcome


class Scaled(EMT):
    """EMT of copper with lengths, energies or stresses off by a factor."""

    def __init__(self, lengths: float = 1.0, energies: float = 1.0, stresses: float = 1.0) -> None:
        super().__init__()
        self.factors = lengths, energies, stresses

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        lengths, energies, stresses = self.factors
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell * lengths, scale_atoms=True)
        EMT.calculate(self, scaled, ["energy"], ["positions", "numbers", "cell", "pbc"])
        for name, factor in (
            ("energy", energies), ("free_energy", energies), ("energies", energies),
            ("forces", energies * lengths), ("stress", energies * stresses * lengths**3),
        ):  # fmt: skip
            if name in self.results:
                self.results[name] = self.results[name] * factor
        self.atoms = atoms.copy()


@pytest.mark.parametrize(
    ("name", "faults", "part"),
    [
        ("crystals", {"lengths": 1.06}, "lattice constant"),
        ("crystals", {"energies": 2.0}, "bulk modulus"),
        ("elastic", {"stresses": 1.2}, "by stress over that by energies"),
        ("phonons", {"energies": -1.0, "stresses": 0.0}, "lowest frequency"),
        ("surface", {"energies": -1.0}, "(100)"),
    ],
)
def test_properties_of_crystals(name, faults, part, tmp_path):
    for package in {"elastic": ("matscipy", "spglib"), "phonons": ("phonopy",)}.get(name, ()):
        pytest.importorskip(package)
    sound = run(name, Scaled(), ("Cu",), tmp_path)
    assert sound.status == "passed", sound
    broken = run(name, Scaled(**faults), ("Cu",), tmp_path)
    assert broken.status == "failed"
    assert broken.reason or not figure(broken, part).passed
