"""How charges behave in matter, head by head: `make bench ARGS="-k charge_physics"` (2 hours).

All heads are trained with the same backbone, data, steps and seeds: on molecules, ions, carbon
chains and clusters of NaCl by GFN2-xTB (`charge_physics/molecules.yaml`); QEq and ACKS2 also on
crystals of NaCl, LiF and MgO by GFN1-xTB (`charge_physics/crystals.yaml`). Then they are asked what
no error on frames like those of training shows: polarizabilities of chains, pairs 1000 Å apart,
slabs in a field, Born charges of larger cells, the splitting of optical phonons, salt in water,
atoms that come too close. Needs tblite (``pip install "phicalc[label]"``).

The picture goes to ``docs/pictures``. PHICALC_BENCH_SEEDS and PHICALC_BENCH_HEADS choose seeds and
heads (names with commas between them). Models are kept in PHICALC_BENCH_FOLDER
(``runs/charge_physics`` by default).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError
from matplotlib.axes import Axes

from phicalc import PhiCalculator
from phicalc.labelling import CalculatorSpec
from phicalc.pictures import BLUE, GREY, RED, new_figure
from phicalc.properties import phonons
from phicalc.relax import relax
from phicalc.units import COULOMB_CONSTANT, WAVENUMBER_PER_THZ
from phicalc.validation import ValidationConfig, subject_of_model, validate

from .charge_physics.models import HEADS, REPOSITORY, SEEDS, calculators, trained
from .charge_physics.structures import (
    FAR,
    NACL,
    alkane,
    far_pairs,
    pair_at,
    polyyne,
    salt_water,
    slab,
)

# Structures far from the training data are what it is about.
pytestmark = pytest.mark.filterwarnings("ignore::phicalc.inference.concerns.DomainWarning")

CHAINS = (6, 10, 14, 20)
SLABS = (2, 4, 8)
DISTANCES = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
PICTURE = REPOSITORY / "docs" / "pictures" / "which-charges.png"


def over_seeds(values: list[float], digits: int = 3) -> str:
    """Mean and range over seeds."""
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f} … {max(values):.{digits}f})"


@pytest.mark.parametrize("data", list(HEADS))
def test_charge_physics_errors(data: str, record: Callable[[str, float], None]) -> None:
    """Errors on the validation frames after the last epoch."""
    print(f"\n{data}, validation: energy (meV/atom), forces (meV/Å), charges (me), seconds")
    for head in HEADS[data]:
        found = [json.loads((trained(data, head, s) / "metrics.json").read_text()) for s in SEEDS]
        parts = []
        for name in ("energy_rmse", "forces_rmse", "charges_rmse"):
            values = [each["valid"]["metrics"][name] for each in found]
            parts.append(over_seeds(values, 1))
            record(f"{data} {head} {name}", mean(values))
        print(f"  {head:<13} {'   '.join(parts)}   {mean(each['seconds'] for each in found):.0f}")
        assert all(np.isfinite(each["valid"]["metrics"]["forces_rmse"]) for each in found)


def polarizabilities(head: str, build: Callable[[int], Atoms]) -> np.ndarray:
    """Along the chain in Å³ for each carbon atom, by seed and length."""
    return np.array(
        [
            [calc.get_polarizability(build(n))[0, 0] * COULOMB_CONSTANT / n for n in CHAINS]
            for calc in calculators("molecules", head)
        ]
    )


@pytest.mark.parametrize("build", [alkane, polyyne])
def test_charge_physics_polarizability_of_chains(
    build: Callable[[int], Atoms], record: Callable[[str, float], None]
) -> None:
    """Along the chain, for each carbon atom: constant in a long insulator, growing in a metal."""
    print(f"\n{build.__name__}s, polarizability along the chain in Å³ for each C: {CHAINS}")
    for head in HEADS["molecules"]:
        try:
            rows = polarizabilities(head, build)
        except PropertyNotImplementedError as error:
            print(f"  {head:<13} refused ({error})")
            continue
        print(f"  {head:<13}", "   ".join(over_seeds(list(column), 2) for column in rows.T))
        ratio = float((rows[:, -1] / rows[:, 0]).mean())
        print(f"         C20/C6 for each C: {ratio:.2f}")
        record(f"{build.__name__}s {head} polarizability per C, C20/C6", ratio)
        assert (rows > 0).all()


def energy_and_charges(
    atoms: Atoms, charge: int, calculator: PhiCalculator
) -> tuple[float, np.ndarray]:
    """Energy in eV and charges in e."""
    atoms = Atoms(atoms.numbers, atoms.positions, info={"charge": charge}, calculator=calculator)
    return atoms.get_potential_energy(), atoms.get_charges()


@cache
def far_defects(head: str, pair: str) -> tuple[list[float], list[float]]:
    """Return what binds a pair 1000 Å apart (eV) and what one has lost (e), for each seed."""
    (first, q_first), (second, q_second) = far_pairs()[pair]
    energies, charges = [], []
    for calc in calculators("molecules", head):
        both, q = energy_and_charges(pair_at(first, second, FAR), q_first + q_second, calc)
        alone = energy_and_charges(first, q_first, calc)[0]
        alone += energy_and_charges(second, q_second, calc)[0]
        charges.append(float(q[: len(first)].sum()) - q_first)
        energies.append(both - alone - COULOMB_CONSTANT * q_first * q_second / FAR)
    return energies, charges


def test_charge_physics_of_far_pairs(record: Callable[[str, float], None]) -> None:
    print(f"\nE(A+B at {FAR:.0f} Å) − E(A) − E(B) − k q q'/r (meV); charge of A − its own (e)")
    worst = {head: (0.0, 0.0) for head in HEADS["molecules"]}
    for pair in far_pairs():
        for head in worst:
            energies, charges = far_defects(head, pair)
            print(
                f"  {pair:<18} {head:<13}", over_seeds([1000 * e for e in energies], 2), end="   "
            )
            print(over_seeds(charges, 4), flush=True)
            largest = max(map(abs, energies)), max(map(abs, charges))
            worst[head] = tuple(map(max, worst[head], largest))
    for head, (energy, charge) in worst.items():
        record(f"far pairs, {head}, largest error (meV)", 1000 * energy)
        record(f"far pairs, {head}, largest charge (e)", charge)
    assert worst["acks2"] < worst["qeq"]


def screened(cells: int, calculator: PhiCalculator) -> float:
    """``4πP/E`` of a slab in a field across times its cells: what these screen, 1 in a metal."""
    field, moments = 0.01, []
    for strength in (-field, field):
        atoms = slab(cells)
        atoms.info["external_field"] = [0.0, 0.0, strength]
        atoms.calc = calculator
        moments.append(float(atoms.get_charges() @ atoms.positions[:, 2]))
    slope = (moments[1] - moments[0]) / (2 * field)
    return 4 * np.pi * COULOMB_CONSTANT * slope / NACL**3


def slab_constants(head: str) -> np.ndarray:
    """ε∞ of slabs as thick as their cells, by seed and thickness."""
    return np.array(
        [
            [1 / (1 - screened(cells, calc) / cells) for cells in SLABS]
            for calc in calculators("crystals", head)
        ]
    )


def test_charge_physics_dielectric_constant(record: Callable[[str, float], None]) -> None:
    print(
        f"\nNaCl, ε∞ of slabs of {SLABS} cells; of four cells more, without surfaces; the crystal"
    )
    for head in HEADS["crystals"]:
        found = slab_constants(head)
        print(f"  {head:<13}", "  ".join(over_seeds(list(column)) for column in found.T))
        added = [(screened(8, c) - screened(4, c)) / 4 for c in calculators("crystals", head)]
        inner = [1 / (1 - each) if each < 0.999 else np.inf for each in added]
        print(f"  {head:<13} four cells more: {over_seeds(inner)}")
        record(
            f"NaCl {head} dielectric constant, 8 cells over 2", (found[:, 2] / found[:, 0]).mean()
        )
        crystal = bulk("NaCl", "rocksalt", a=NACL)
        try:
            whole = [c.get_dielectric_tensor(crystal)[2, 2] for c in calculators("crystals", head)]
        except PropertyNotImplementedError as error:
            print(f"  {head:<13} crystal: refused ({error})")
            continue
        print(f"  {head:<13} crystal: {over_seeds(whole)}")
        record(f"NaCl {head} dielectric constant of the crystal", mean(whole))
        np.testing.assert_allclose(inner, whole, rtol=0.02)


def test_charge_physics_born_charges(record: Callable[[str, float], None]) -> None:
    cubic = bulk("NaCl", "rocksalt", a=NACL, cubic=True)
    print("\nNaCl, Born charge of Na in cells of 8, 64 and 48 atoms")
    for head in HEADS["crystals"]:
        for calc, seed in zip(calculators("crystals", head), SEEDS, strict=True):
            try:
                found = [
                    calc.get_born_effective_charges(cubic.repeat(times))[0, 0, 0]
                    for times in (1, 2, (3, 2, 1))
                ]
            except PropertyNotImplementedError as error:
                print(f"  {head:<13} refused ({error})")
                break
            print(f"  {head:<13} seed {seed}", "  ".join(f"{value:.6f}" for value in found))
            record(f"NaCl {head} Born charge of Na, seed {seed}, spread", float(np.ptp(found)))
            assert np.ptp(found) < 1e-3


def optical_modes(calculator: PhiCalculator) -> tuple[float, float]:
    """TO and LO of relaxed NaCl at Γ in 1/cm; equal where nothing lifts the latter."""
    atoms = bulk("NaCl", "rocksalt", a=NACL)
    atoms.calc = calculator
    relax(atoms, fmax=1e-4, cell=True)
    result = phonons(atoms, calculator, supercell=(4, 4, 4), n_points=2)
    gamma = result.bands[0] if result.longitudinal is None else result.longitudinal
    return WAVENUMBER_PER_THZ * float(gamma[3]), WAVENUMBER_PER_THZ * float(gamma[5])


@pytest.mark.filterwarnings("ignore:.*longitudinal.*:UserWarning")
def test_charge_physics_phonons(record: Callable[[str, float], None]) -> None:
    print("\nNaCl, optical phonons at Γ in 1/cm: TO, LO; experiment 164, 264")
    for head in HEADS["crystals"]:
        modes = np.array([optical_modes(calc) for calc in calculators("crystals", head)])
        print(
            f"  {head:<13} {over_seeds(list(modes[:, 0]), 0)}  {over_seeds(list(modes[:, 1]), 0)}"
        )
        record(f"NaCl {head} TO (1/cm)", float(modes[:, 0].mean()))
        record(f"NaCl {head} LO (1/cm)", float(modes[:, 1].mean()))
        assert (modes > 0).all()


@cache
def ions_by_xtb() -> np.ndarray:
    """Charges of Na and Cl in e at each distance; NaN where there is no converged density."""
    found = []
    for distance in DISTANCES:
        droplet = salt_water(distance)
        droplet.info["charge"] = 0
        droplet.calc = CalculatorSpec(arguments={"max_iterations": 250}).make(droplet)
        try:
            found.append(droplet.get_charges()[-2:])
        except CalculationFailed:
            found.append(np.full(2, np.nan))
    return np.array(found)


@cache
def ions_by_model(head: str) -> np.ndarray:
    """Charges of Na and Cl in e by seed and distance."""
    return np.array(
        [
            [energy_and_charges(salt_water(d), 0, calc)[1][-2:] for d in DISTANCES]
            for calc in calculators("molecules", head)
        ]
    )


def test_charge_physics_of_salt_in_water(record: Callable[[str, float], None]) -> None:
    print(f"\nNa+ … Cl- among 60 molecules of water at {DISTANCES} Å: charge of Na, Cl (e)")
    reference = ions_by_xtb()
    print("  xTB    ", "  ".join(f"{q[0]:+.2f} {q[1]:+.2f}" for q in reference))
    for head in HEADS["molecules"]:
        found = ions_by_model(head)
        print(f"  {head:<13} ", "  ".join(f"{q[0]:+.2f} {q[1]:+.2f}" for q in found.mean(0)))
        error = float(np.sqrt(np.nanmean((found - reference) ** 2)))
        record(f"salt in water, {head}, charges of the ions, error (e)", error)
        assert np.isfinite(found).all()


@pytest.mark.parametrize(("data", "head"), [(d, h) for d in HEADS for h in HEADS[d]])
def test_charge_physics_has_no_holes(
    data: str, head: str, tmp_path: Path, record: Callable[[str, float], None]
) -> None:
    """All pairs of elements, random packings, cells at a fifth of their volume."""
    checks = ValidationConfig(only=("walls", "approaches", "compression"))
    print(f"\n{data}, {head}")
    for seed in SEEDS:
        subject = subject_of_model(trained(data, head, seed) / "model", compile=False)
        certificate = validate(subject, tmp_path / seed, checks)
        for outcome in certificate.outcomes:
            for figure in outcome.figures:
                passed = "" if figure.passed else "FAILED"
                print(f"  seed {seed} {outcome.check}: {figure.name}: {figure.value} {passed}")
            left = outcome.status in ("failed", "not run")
            record(f"{data} {head} {outcome.check} failed, seed {seed}", float(left))
        assert certificate.outcomes


COLORS = {"qeq": RED, "acks2": BLUE, "latent": GREY, "solve+coulomb": "#d99a2b"}


def draw_far_pairs(axes: Axes) -> None:
    """Bars of what is left of each interaction."""
    names = list(far_pairs())
    for number, head in enumerate(HEADS["molecules"]):
        left = [1000 * max(map(abs, far_defects(head, name)[0])) for name in names]
        places = np.arange(len(names)) + 0.2 * (number - 1.5)
        axes.barh(places, np.maximum(left, 0.01), 0.2, color=COLORS[head])
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xscale="log", xlim=(0.01, None), xlabel="error of E 1000 Å apart (meV)")
    axes.axvline(1, color=GREY, linestyle="--")
    axes.invert_yaxis()


def test_charge_physics_picture() -> None:
    """Draw chains, slabs, pairs far apart, and salt in water."""
    figure, (chains, slabs, pairs, salt) = new_figure(2, 2)
    for head in HEADS["molecules"]:
        found = ions_by_model(head).mean(0)[:, 0]
        salt.plot(DISTANCES, found, "o-", color=COLORS[head], label=head)
    for head in HEADS["crystals"]:
        style = {"color": COLORS[head], "label": head}
        chains.plot(CHAINS, polarizabilities(head, alkane).mean(0), "o-", **style)
        slabs.plot(SLABS, slab_constants(head).mean(0), "o-", **style)
    draw_far_pairs(pairs)
    slabs.axhline(2.3, color=GREY, linestyle="--", label="experiment")
    salt.plot(DISTANCES, ions_by_xtb()[:, 0], "s", color="black", label="GFN2-xTB")
    chains.set(
        xlabel="carbon atoms of the alkane", ylabel="polarizability per C (Å³)", ylim=(0, None)
    )
    slabs.set(xlabel="cells of NaCl in the slab", ylabel="ε∞ across", ylim=(0, None))
    salt.set(xlabel="Na … Cl in water (Å)", ylabel="charge of Na (e)", ylim=(0, None))
    for axes in (chains, slabs, salt):  # colors of bars are those beside them
        axes.legend(frameon=False, fontsize=8)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    assert PICTURE.stat().st_size > 10_000
