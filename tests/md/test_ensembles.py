"""Integrators: what is conserved, which temperature is reached, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLengths

from phicalc.md import MDConfig, read_log, run_md
from phicalc.md.integrators import build_integrator
from phicalc.md.log import temperature
from phicalc.md.velocities import degrees_of_freedom, initialise_velocities

from .systems import NoInteraction, Springs, cluster, gas

METHODS = {
    "nve": {"ensemble": "nve"},
    "langevin": {"thermostat": "langevin"},
    "bussi": {"thermostat": "bussi"},
    "nose-hoover": {"thermostat": "nose-hoover"},
    "berendsen": {"thermostat": "berendsen"},
    "npt": {"ensemble": "npt", "barostat_time": 300.0},
    "npt full": {"ensemble": "npt", "barostat_time": 300.0, "cell_motion": "full"},
    "npt axes": {"ensemble": "npt", "barostat_time": 300.0, "cell_motion": "axes", "axes": "bc"},
    "npt berendsen": {"ensemble": "npt", "thermostat": "berendsen"},
}


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    return atoms


def advance(atoms: Atoms, config: MDConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Temperature, total and conserved energy after every step."""
    rng = np.random.default_rng(config.seed)
    if not np.any(atoms.get_momenta()):
        initialise_velocities(atoms, config.temperature, rng)
    integrator = build_integrator(atoms, config, rng)
    dynamics, rows = integrator.dynamics, []
    for _ in dynamics.irun(config.steps):
        kelvin = temperature(atoms, integrator.degrees_of_freedom)
        rows.append((kelvin, atoms.get_total_energy(), integrator.conserved_energy()))
        if config.is_ramp:
            integrator.aim(*config.targets(dynamics.nsteps + 1))
    return tuple(np.array(rows).T)


@pytest.mark.parametrize("method", METHODS)
def test_conserved_energy_is_conserved(method):
    config = MDConfig(timestep=2.0, steps=125, thermostat_time=25.0, **METHODS[method])
    _, total, conserved = advance(copper(), config)
    assert np.ptp(conserved) < 1.5e-3  # eV, of four atoms; the error of the time step
    if method != "nve":
        assert np.ptp(total) > 50 * np.ptp(conserved)  # so the bookkeeping of heat matters


@pytest.mark.parametrize("method", METHODS)
def test_error_of_the_conserved_energy_is_of_second_order(method):
    def error(timestep: float) -> float:
        config = MDConfig(
            timestep=timestep, steps=round(100.0 / timestep), thermostat_time=50.0,
            **METHODS[method],
        )  # fmt: skip
        return float(np.ptp(advance(copper(), config)[2]))

    assert error(4.0) / error(2.0) == pytest.approx(4.0, rel=0.6)


@pytest.mark.parametrize("method", ["langevin", "bussi"])
def test_thermostat_brings_a_gas_to_its_temperature(method):
    atoms = gas(300)
    config = MDConfig(
        thermostat=method, temperature=300.0, thermostat_time=20.0, timestep=2.0, steps=300
    )
    initialise_velocities(atoms, 50.0, np.random.default_rng(1))
    kelvin = advance(atoms, config)[0]
    assert kelvin[0] < 70
    assert kelvin[100:].mean() == pytest.approx(300.0, rel=0.04)
    # Canonical fluctuations: σ(T) = T √(2/n_free), here 7.1 % of 300 K.
    assert kelvin[100:].std() == pytest.approx(300.0 * np.sqrt(2 / 900), rel=0.5)


def test_bussi_counts_only_the_motion_that_is_there():
    """Three atoms without total or angular momentum have three quadratic terms, not nine."""
    atoms = molecule("H2O")
    atoms.calc = NoInteraction()
    config = MDConfig(
        thermostat="bussi", temperature=300.0, thermostat_time=2.0, timestep=1.0, steps=3000
    )
    kelvin = advance(atoms, config)[0]
    assert kelvin.mean() == pytest.approx(300.0, rel=0.1)  # with 3 N it would be 900 K


def test_nose_hoover_counts_only_the_motion_that_is_there():
    config = MDConfig(
        thermostat="nose-hoover", temperature=300.0, thermostat_time=30.0, timestep=3.0, steps=1500
    )
    kelvin = advance(copper(), config)[0]
    assert kelvin[300:].mean() == pytest.approx(300.0, rel=0.1)  # with 3 N it would be 400 K


@pytest.mark.parametrize("method", ["langevin", "bussi", "nose-hoover"])
def test_kinetic_energy_is_distributed_canonically(method):
    """Atoms on springs: n quadratic terms follow a gamma distribution of shape n/2."""
    config = MDConfig(thermostat=method, timestep=10.0, steps=3000, seed=1)
    kelvin = advance(cluster(Springs(memory=0.0)), config)[0][300:]
    n_free = 18 if method == "langevin" else 15
    assert kelvin.mean() == pytest.approx(300.0, rel=0.1)  # about three sigma
    assert kelvin.var() == pytest.approx(300.0**2 * 2 / n_free, rel=0.45)
    canonical = scipy.stats.gamma(n_free / 2, scale=300.0 * 2 / n_free)
    assert scipy.stats.kstest(kelvin[::30], canonical.cdf).pvalue > 1e-3


@pytest.mark.parametrize("method", ["langevin", "bussi", "nose-hoover", "berendsen", "npt full"])
def test_ramps_lead_there_and_their_work_is_counted(method):
    settings = METHODS[method] | {"temperature": 200.0, "temperature_end": 600.0}
    if method == "npt full":
        settings |= {"pressure": 0.0, "pressure_end": 100.0}
    config = MDConfig(**settings, timestep=5.0, steps=750, thermostat_time=25.0)
    kelvin, _, conserved = advance(cluster(Springs(memory=0.0)), config)
    assert kelvin[-150:].mean() == pytest.approx(560.0, rel=0.2)
    assert np.ptp(conserved) < 0.05  # the heat that went in is about 0.7 eV


def test_berendsen_brings_a_gas_to_pressure_and_temperature():
    atoms = gas(50)
    config = MDConfig(
        ensemble="npt", thermostat="berendsen", pressure=60.0, temperature=350.0, timestep=5.0,
        steps=800, thermostat_time=100.0, barostat_time=200.0, compressibility=1 / 60.0,
    )  # fmt: skip
    kelvin, _, conserved = advance(atoms, config)
    expected = len(atoms) * units.kB * 350.0 / (60.0 * units.bar)
    assert kelvin[-100:].mean() == pytest.approx(350.0, rel=0.02)
    assert atoms.get_volume() == pytest.approx(expected, rel=0.1)
    assert np.ptp(conserved) < 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"cell_motion": "axes", "axes": "b"},
        {"cell_motion": "axes", "axes": "b", "thermostat": "berendsen"},
    ],
)
def test_only_the_axes_that_were_named_move(settings):
    atoms = gas(20)
    config = MDConfig(ensemble="npt", pressure=80.0, steps=100, timestep=5.0, **settings)
    before = atoms.cell.cellpar()
    advance(atoms, config)
    after = atoms.cell.cellpar()
    assert abs(after[1] - before[1]) > 1e-3
    np.testing.assert_allclose(np.delete(after, 1), np.delete(before, 1), atol=1e-9)


def test_berendsen_refuses_axes_of_skewed_cells(rng):
    atoms = bulk("Cu")
    atoms.calc = EMT()
    initialise_velocities(atoms, 300.0, rng)
    config = MDConfig(ensemble="npt", thermostat="berendsen", cell_motion="axes")
    with pytest.raises(ValueError, match="lattice vectors along x, y and z"):
        build_integrator(atoms, config, rng)


@pytest.mark.parametrize("cell_motion", ["isotropic", "full", "axes"])
def test_npt_gas_fills_the_volume_of_the_ideal_gas_law(cell_motion):
    atoms, pressure = gas(100), 41.4  # bar: 1000 Å³ per atom at 300 K
    config = MDConfig(
        ensemble="npt", pressure=pressure, temperature=300.0, timestep=5.0, steps=1500,
        thermostat_time=50.0, barostat_time=250.0, cell_motion=cell_motion,
    )  # fmt: skip
    initialise_velocities(atoms, 300.0, np.random.default_rng(2))
    atoms.set_cell(atoms.cell * 0.9, scale_atoms=True)  # 27 % too dense
    dynamics = build_integrator(atoms, config, np.random.default_rng(2)).dynamics
    volumes = [atoms.get_volume() for _ in dynamics.irun(config.steps)]
    expected = len(atoms) * units.kB * 300.0 / (pressure * units.bar)
    # σ(V) = V/√100; the run is some 12 times as long as the barostat remembers: three sigma.
    assert np.mean(volumes[250:]) == pytest.approx(expected, rel=0.1)
    assert np.ptp(volumes) > 0.1 * expected


def test_velocities_have_no_drift_and_molecules_no_rotation(rng):
    atoms = molecule("CH3CH2OH")
    initialise_velocities(atoms, 300.0, rng)
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12
    assert np.abs(atoms.get_angular_momentum()).max() < 1e-12
    assert atoms.get_kinetic_energy() > 0
    assert degrees_of_freedom(atoms) == 3 * len(atoms) - 6
    assert degrees_of_freedom(atoms, all_motion=True) == 3 * len(atoms)


def test_periodic_structures_keep_their_rotation(rng):
    atoms = gas(20)
    initialise_velocities(atoms, 300.0, rng)
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12
    assert np.abs(atoms.get_angular_momentum()).max() > 1.0
    assert degrees_of_freedom(atoms) == 57


@pytest.mark.parametrize(("name", "n_free"), [("N2", 1), ("CO2", 4), ("H2O", 3)])
def test_linear_molecules_lose_two_rotations_only(name, n_free, rng):
    atoms = molecule(name)
    atoms.rotate(33, (1, 2, 3))
    initialise_velocities(atoms, 300.0, rng)
    assert np.abs(atoms.get_velocities()).max() < 1  # ten kilometres a second
    assert np.abs(atoms.get_angular_momentum()).max() < 1e-12
    assert degrees_of_freedom(atoms) == n_free


def test_velocities_follow_maxwell_and_boltzmann(rng):
    atoms = gas(2000)
    initialise_velocities(atoms, 450.0, rng)
    speeds = atoms.get_velocities().ravel()
    expected = np.sqrt(units.kB * 450.0 / atoms.get_masses()[0])
    assert speeds.std() == pytest.approx(expected, rel=0.03)


def test_a_single_atom_keeps_moving(rng):
    atoms = Atoms("Ar", cell=[9.0] * 3, pbc=True)
    initialise_velocities(atoms, 300.0, rng)
    assert atoms.get_kinetic_energy() > 1e-3
    assert degrees_of_freedom(atoms) == 3


def test_given_velocities_are_kept(rng):
    atoms = molecule("H2O")
    momenta = rng.normal(size=(3, 3))
    atoms.set_momenta(momenta)
    with pytest.warns(UserWarning, match="velocities of .* K, and they are kept, though temp"):
        initialise_velocities(atoms, 300.0, rng)
    initialise_velocities(atoms, 300.0, rng, "keep")
    assert np.array_equal(atoms.get_momenta(), momenta)
    initialise_velocities(atoms, 300.0, rng, "new")
    assert not np.array_equal(atoms.get_momenta(), momenta)
    initialise_velocities(atoms, 300.0, rng)  # those of 300 K are kept without a word


def test_langevin_holds_fixed_atoms(rng):
    atoms = copper()
    atoms.set_constraint(FixAtoms([0]))
    start = atoms.positions.copy()
    kelvin, *_ = advance(atoms, MDConfig(timestep=2.0, steps=20))
    assert np.array_equal(atoms.positions[0], start[0])
    assert not np.allclose(atoms.positions[1:], start[1:])
    assert np.isfinite(kelvin).all()


@pytest.mark.parametrize("method", ["nose-hoover", "npt", "npt full", "npt berendsen"])
def test_constraints_that_would_be_ignored_are_refused(method, rng):
    atoms = copper()
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(ValueError, match=r"cannot keep the constraints \['FixAtoms'\].*'bussi'"):
        build_integrator(atoms, MDConfig(**METHODS[method]), rng)


def test_langevin_refuses_bond_constraints(rng):
    atoms = copper()
    atoms.set_constraint(FixBondLengths([(0, 1)]))
    with pytest.raises(ValueError, match="FixBondLengths"):
        build_integrator(atoms, MDConfig(), rng)


@pytest.mark.parametrize("settings", [{"ensemble": "npt"}, {"log_pressure": True}])
def test_pressure_needs_a_volume(settings, rng):
    atoms = molecule("H2O")
    atoms.calc = EMT()
    with pytest.raises(ValueError, match="periodic in three directions"):
        build_integrator(atoms, MDConfig(**settings), rng)


def test_pressure_needs_a_calculator_with_stress(rng):
    atoms = copper()
    atoms.calc.implemented_properties = ["energy", "free_energy", "forces"]
    with pytest.raises(ValueError, match="stress, which the calculator EMT does not give"):
        build_integrator(atoms, MDConfig(ensemble="npt"), rng)


def test_bussi_refuses_atoms_at_rest(rng):
    with pytest.raises(ValueError, match="cannot start from rest"):
        build_integrator(copper(), MDConfig(thermostat="bussi"), rng)


def test_npt_log_holds_the_pressure_of_the_ideal_gas(tmp_path):
    atoms = gas(50)
    config = MDConfig(ensemble="npt", pressure=41.4, steps=4, log_interval=1)
    log = read_log(run_md(atoms, config, tmp_path).log)
    # Of a gas without forces the pressure is 2 E_kin / 3 V: here with 3 N terms.
    expected = 2 * log["kinetic_energy_eV"] / (3 * log["volume_A3"]) / units.bar
    np.testing.assert_allclose(log["pressure_bar"], expected, rtol=1e-5)
