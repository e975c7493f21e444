"""Every check fails on the fault it is for, and passes without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc import PhiCalculator
from phicalc.labelling import CalculatorSpec
from phicalc.potential import build_potential
from phicalc.validation import (
    ValidationConfig,
    all_checks,
    perform,
    subject_of_calculator,
    subject_of_spec,
)
from phicalc.validation.check import Context
from phicalc.validation.checks import drift
from phicalc.validation.subject import NOTHING_KNOWN, Claims

from ..tiny import flat_config
from .toys import Pairs

CHECKS = all_checks()
ISOLATED = Claims(periodic=False)


def run(name: str, calculator, elements, folder, structures=(), claims=NOTHING_KNOWN, **settings):
    """Outcome of one check."""
    subject = subject_of_calculator(calculator, elements, structures, claims)
    return perform(CHECKS[name], subject, Context(ValidationConfig(**settings), folder))


def figure(outcome, part: str):
    """Return the only figure whose name holds a text."""
    (found,) = [each for each in outcome.figures if part in each.name]
    return found


CRYSTAL = bulk("Cu", a=3.75, cubic=True) * (1, 1, 2)
CRYSTAL.positions += 0.02 * np.sin(np.arange(24)).reshape(8, 3)
SILVER = Atoms("Ag3", [[0, 0, 0], [2.9, 0, 0], [1.45, 2.5, 0]])
ALLOY = Atoms("CuAg2", [[0, 0, 0], [2.7, 0, 0], [5.5, 0.4, 0]])

#: Check, fault, the figure that must fail, and the structures it is measured with.
FAULTS = [
    ("walls", "hole", "pairs with a hole", ()),
    ("walls", "hole", "deepest fall", ()),
    ("symmetry", "rotation", "rotation", (ALLOY,)),
    ("symmetry", "permutation", "permutation", (ALLOY,)),
    ("symmetry", "translation", "translation", (CRYSTAL,)),
    ("symmetry", "size", "extensivity", (CRYSTAL,)),
    ("symmetry", "curl", "forces are derivatives", (CRYSTAL,)),
    ("symmetry", "stress", "stress is a derivative", (CRYSTAL,)),
    ("symmetry", "charges", "sum of charges", (CRYSTAL,)),
    ("cutoff", "kink", "largest jump", ()),
    ("cutoff", "jump", "largest jump", ()),
    ("fragments", "size", "does not add up", (SILVER,)),
    ("fragments", "leak", "charge that leaks", (SILVER,)),
    ("compression", "hole", "Cu8 (periodic) at", (CRYSTAL,)),
]


@pytest.mark.parametrize(("name", "fault", "part", "structures"), FAULTS)
def test_a_fault_is_found(name, fault, part, structures, tmp_path):
    outcome = run(name, Pairs(fault), ("Cu", "Ag"), tmp_path, structures, ISOLATED)
    assert outcome.status == "failed"
    assert not figure(outcome, part).passed


@pytest.mark.parametrize("name", sorted({fault[0] for fault in FAULTS}))
def test_a_sound_potential_passes(name, tmp_path):
    outcome = run(name, Pairs(), ("Cu", "Ag"), tmp_path, (CRYSTAL, SILVER, ALLOY), ISOLATED)
    assert outcome.status == "passed", outcome
    assert outcome.seconds > 0


@pytest.mark.parametrize("fault", ["", "curl"])
def test_drift_of_forces_that_do_not_conserve_energy(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "DURATION", 0.15)  # ps
    cluster = Atoms("Cu4", 2.3 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    outcome = run("drift", Pairs(fault, 0.5), ("Cu",), tmp_path, (cluster,), ISOLATED)
    assert outcome.status == ("failed" if fault else "passed"), outcome


@pytest.mark.parametrize("name", list(CHECKS))
def test_an_error_of_the_calculator_is_a_failure_with_the_reason(name, tmp_path):
    outcome = run(name, Pairs("crash"), ("Cu", "Ag"), tmp_path, (CRYSTAL, SILVER))
    assert outcome.status in ("failed", "not applicable")
    assert "a defect of the calculator" in outcome.reason or outcome.status == "not applicable"


@pytest.mark.parametrize("name", ["walls", "symmetry", "compression", "fragments", "cutoff"])
def test_energies_that_are_not_numbers_are_a_failure(name, tmp_path):
    outcome = run(name, Pairs("nan"), ("Cu", "Ag"), tmp_path, (CRYSTAL, SILVER))
    assert outcome.status == "failed"


def test_structures_of_one_formula_are_several_fragments(tmp_path):
    bent = SILVER.copy()
    bent.positions[2] += 0.4
    outcome = run("fragments", Pairs(), ("Ag",), tmp_path, (SILVER, bent), ISOLATED)
    assert outcome.status == "passed", outcome


@pytest.mark.parametrize(("depth", "status"), [(9.0, "passed"), (0.5, "failed")])
def test_bonds_that_hardly_bind(depth, status, tmp_path):
    outcome = run("bonds", Pairs(depth=depth), ("N",), tmp_path, claims=ISOLATED)
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
    outcome = run("torsions", Turning(barrier), ("C", "F"), tmp_path, claims=ISOLATED)
    assert outcome.status == status
    assert figure(outcome, "C2F4").value == pytest.approx(barrier, rel=1e-3)


@pytest.mark.parametrize(("width", "status"), [(2.7, "passed"), (1.3, "failed")])
def test_frequencies_of_soft_bonds(width, status, tmp_path):
    outcome = run("frequencies", Pairs(depth=9.9, width=width), ("N",), tmp_path, claims=ISOLATED)
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


class Guessing(Pairs):
    """Forces with an error, and an uncertainty that is or is not as large."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        super().calculate(atoms, properties, system_changes)
        rng = np.random.default_rng(1)
        sizes = rng.uniform(0.02, 0.4, len(atoms))
        noise = rng.normal(size=(len(atoms), 3)) / np.sqrt(3)
        self.results["forces"] = self.results["forces"] + sizes[:, None] * noise
        self.committee_results = {"forces_std": self.size * sizes}


@pytest.mark.parametrize(("size", "status"), [(1.0, "passed"), (0.1, "failed")])
def test_calibration_of_an_uncertainty(size, status, tmp_path):
    crystal = bulk("Cu", a=3.75, cubic=True) * 2
    crystal.calc = Pairs()
    labels = crystal.get_forces()
    crystal.calc = SinglePointCalculator(crystal, forces=labels, energy=0.0)
    outcome = run("calibration", Guessing(size), ("Cu",), tmp_path, (crystal,))
    assert outcome.status == status, outcome


class Charged(Pairs):
    """Born charges that do or do not depend on the cell."""

    def __init__(self, metallic: bool) -> None:
        super().__init__()
        self.metallic = metallic

    def get_born_effective_charges(self, atoms: Atoms) -> np.ndarray:
        signs = np.where(atoms.numbers == atoms.numbers[0], 1.0, -1.0)
        size = len(atoms) if self.metallic else 1.0
        return size * signs[:, None, None] * np.eye(3)


@pytest.mark.parametrize(("metallic", "status"), [(False, "passed"), (True, "failed")])
def test_born_charges_that_depend_on_the_cell(metallic, status, tmp_path):
    outcome = run("born", Charged(metallic), ("Na", "Cl"), tmp_path)
    assert outcome.status == status, outcome


@pytest.mark.parametrize(("head", "status"), [("acks2", "passed"), ("qeq", "failed")])
def test_response_of_a_metal(head, status, tmp_path):
    config = flat_config(
        elements=("H", "C"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1, head=head
    )
    calculator = PhiCalculator(build_potential(config, seed=1), dtype="float64")
    outcome = run("response", calculator, ("H", "C"), tmp_path, claims=ISOLATED)
    assert outcome.status == status, outcome


def test_what_does_not_apply_says_why(tmp_path):
    names = ("torsions", "dimers", "born", "calibration", "response", "liquid", "density")
    reasons = {name: run(name, Pairs(), ("Cu",), tmp_path).reason for name in names}
    assert reasons["torsions"] == "it knows none of the molecules"
    assert reasons["calibration"] == "the calculator gives no uncertainty"
    assert reasons["liquid"] == "it was not made for liquid water"
    assert all(reasons.values())


class Weakened(Pairs):
    """GFN2-xTB with all energies scaled."""

    implemented_properties = ["energy", "free_energy", "forces"]

    def __init__(self, atoms: Atoms, scale: float) -> None:
        super().__init__()
        self.inner, self.scale = CalculatorSpec("gfn2-xtb").make(atoms), scale

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        super(Pairs, self).calculate(atoms, properties, system_changes)
        copy = atoms.copy()
        copy.calc = self.inner
        energy = self.scale * copy.get_potential_energy()
        forces = self.scale * copy.get_forces()
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_molecules_beside_experiment(scale, tmp_path):
    pytest.importorskip("tblite")
    subject = subject_of_spec(CalculatorSpec("gfn2-xtb"), ("H", "O"))
    if scale != 1.0:
        subject = replace(subject, make=lambda atoms: Weakened(atoms, scale))
    for name in ("dimers", "frequencies"):
        outcome = perform(CHECKS[name], subject, Context(ValidationConfig(), tmp_path))
        assert outcome.status == ("passed" if scale == 1.0 else "failed"), outcome
