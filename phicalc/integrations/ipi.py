"""A client of i-PI, and of every program that asks for forces through the protocol of i-PI."""

import json
import socket
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.socketio import (
    IPIProtocol,
    SocketClient,
    SocketClosed,
    SocketServer,
    actualunixsocketname,
)
from ase.parallel import world
from jaxtyping import Float64, Shaped

#: Seconds between two attempts to reach a server that is not there yet.
_RETRY_INTERVAL = 0.1

#: What a server may say, in the words of the protocol.
_MESSAGES = ("STATUS", "POSDATA", "GETFORCE", "EXIT")

#: What a server that is not there yet answers.
_NOT_YET = (ConnectionRefusedError, FileNotFoundError)


class Served(NamedTuple):
    """How the work for a server ended."""

    structures: int
    """Number of structures that were computed."""
    finished: bool
    """Whether the server said that it was done; else it vanished."""


def serve(
    atoms: Atoms,
    *,
    host: str = "localhost",
    port: int | None = None,
    unixsocket: str | None = None,
    wait: float = 60.0,
) -> Served:
    """Compute energies, forces and virials for a server until it has no more questions.

    The server (i-PI, ``ase.calculators.socketio.SocketIOCalculator``, ...) moves the atoms, this
    client computes them. Several clients may serve one server, which gives each the next structure
    that waits. Charges and dipole, if the calculator has them, follow the forces as JSON, in the
    atomic units of the protocol (e, e a0): ``{"charges": [...], "dipole": [...]}``.

    Parameters
    ----------
    atoms
        Structure with a calculator. Elements, their order, boundary conditions and ``info`` are
        taken from here, as the protocol has no words for them; positions and cell come from the
        server and are written into it.
    host, port
        Address of a server that listens at a TCP port; 31415 if no port is given.
    unixsocket
        Name of a UNIX socket instead: ``/tmp/ipi_NAME``, or a path if it begins with ``/``.
    wait
        Seconds to wait for the server to appear.

    Returns
    -------
    served
        Number of structures, and how the work ended. A server that vanishes is no error here: it
        is the server that has lost something, and says so.

    Raises
    ------
    ValueError
        If there is no calculator, or port and socket are both given, or the port does not exist,
        or the server has another number of atoms or does not keep to the protocol.
    OSError
        If there is no server.
    """
    if atoms.calc is None:
        raise ValueError("serving needs a calculator: set atoms.calc first")
    if port is not None and unixsocket is not None:
        raise ValueError(f"give port or unixsocket, not both: got {port} and {unixsocket!r}")
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"port must be a number from 1 to 65535, got {port}")
    protocol = _Protocol(_connect(host, port, unixsocket, wait), atoms)
    structures = 0
    try:
        # Zero virial is what the protocol has for "none".
        for _ in _Client(protocol).irun(atoms, use_stress=bool(atoms.pbc.all())):
            structures += 1
    except (SocketClosed, ConnectionError):
        pass  # in the middle of a message
    return Served(structures, protocol.last_message == "EXIT")


class _Protocol(IPIProtocol):
    """ASE's side of the protocol, with what the calculator knows beyond forces."""

    def __init__(self, connection: socket.socket, atoms: Atoms):
        super().__init__(connection)
        self.atoms = atoms
        self.last_message = ""
        self._next = "POSDATA"

    def recvmsg(self) -> str:
        try:
            message = super().recvmsg()
        except UnicodeDecodeError as error:
            raise _broken(f"it sent {error.object!r}") from error
        if message not in _MESSAGES:
            raise _broken(f"it sent {message!r}, expected one of {', '.join(_MESSAGES)}")
        if message in ("POSDATA", "GETFORCE"):
            if message != self._next:
                raise _broken(f"it sent {message} out of turn, expected {self._next}")
            self._next = "GETFORCE" if message == "POSDATA" else "POSDATA"
        self.last_message = message
        return message

    def recvposdata(
        self,
    ) -> tuple[
        Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3 3"], Float64[np.ndarray, "n_atoms 3"]
    ]:
        """Receive cell (Å), inverse cell (1/Å) and positions (Å)."""
        cell = self._receive((3, 3), np.float64).T.copy()
        inverse = self._receive((3, 3), np.float64).T.copy()
        n_atoms = int(self._receive((1,), np.int32)[0])
        if n_atoms != len(self.atoms):  # before memory is reserved for them
            raise ValueError(
                f"the server sends {n_atoms} atoms and the structure has "
                f"{len(self.atoms)}: give both the same file"
            )
        positions = self._receive((n_atoms, 3), np.float64)
        return cell * units.Bohr, inverse / units.Bohr, positions * units.Bohr

    def _receive(self, shape: tuple[int, ...], dtype: type) -> Shaped[np.ndarray, "..."]:
        """Receive finite numbers."""
        try:
            return super().recv(shape, dtype)
        except AssertionError as error:
            raise _broken("it sent numbers that are not finite") from error

    def sendforce(
        self,
        energy: float,
        forces: Float64[np.ndarray, "n_atoms 3"],
        virial: Float64[np.ndarray, "3 3"],
        *_: Any,
    ) -> None:
        extra = np.frombuffer(json.dumps(_beyond_forces(self.atoms)).encode(), np.byte)
        super().sendforce(energy, forces, virial, extra)


def _broken(what: str) -> ValueError:
    return ValueError(
        f"the server does not keep to the protocol of i-PI: {what}. Check the address, and that "
        "the program behind it is a server of this protocol"
    )


def _beyond_forces(atoms: Atoms) -> dict[str, Any]:
    """Return charges and dipole as far as they have been computed, in atomic units."""
    found = {}
    for name, unit in (("charges", 1.0), ("dipole", units.Bohr)):
        if name in atoms.calc.implemented_properties:
            value = atoms.calc.get_property(name, atoms, allow_calculation=False)
            if value is not None:
                found[name] = (value / unit).tolist()
    return found


class _Client(SocketClient):
    """ASE's client on a connection that exists: its own constructor cannot wait for a server."""

    def __init__(self, protocol: IPIProtocol):
        self.comm = world
        self.protocol = protocol
        self.log = protocol.log
        self.closed = False
        self.state = "READY"


def _connect(host: str, port: int | None, unixsocket: str | None, wait: float) -> socket.socket:
    """Connect to a server, as soon as it is there."""
    family, address = _address(host, port, unixsocket)
    deadline = monotonic() + wait
    while True:
        connection = socket.socket(family)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            if isinstance(error, _NOT_YET) and monotonic() < deadline:
                sleep(_RETRY_INTERVAL)
                continue
            raise type(error)(
                f"no server at {address} within {wait:g} s ({error}): start it, or correct the "
                "address"
            ) from error
        return connection


def _address(
    host: str, port: int | None, unixsocket: str | None
) -> tuple[socket.AddressFamily, Any]:
    """Family and address of a socket."""
    if unixsocket is None:
        return socket.AF_INET, (host, SocketServer.default_port if port is None else port)
    if Path(unixsocket).is_absolute():
        return socket.AF_UNIX, unixsocket
    return socket.AF_UNIX, actualunixsocketname(unixsocket)
