"""What is validated: any ASE calculator, with what is known about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers
from jaxtyping import Float64

from phicalc.calculators import CommitteeCalculator, PhiCalculator
from phicalc.calculators.committee import is_committee, members_of
from phicalc.card import ModelCard
from phicalc.checkpoint import read_card
from phicalc.compiled import Mode
from phicalc.doctor import reference_structures
from phicalc.domain.environments import environments_of
from phicalc.graph import from_ase
from phicalc.inference.domain import domain_of
from phicalc.labelling import CalculatorSpec
from phicalc.registry import find_model

#: Å: no bond is longer.
LONGEST_BOND = 6.0

Maker = Callable[[Atoms], Calculator]


class Claims(NamedTuple):
    """What a calculator was made for; None where nobody knows."""

    charge_range: tuple[float, float] | None = None
    """Smallest and largest total charge in e."""
    periodic: bool | None = None
    """Whether for periodic structures."""
    isolated: bool | None = None
    """Whether for isolated structures."""
    stress: bool | None = None
    """Whether its stress means something."""
    environments: frozenset[str] | None = None
    """Atoms with those that they are bonded to, see `phicalc.domain.environments`."""
    highest_temperature: float | None = None
    """K."""


#: Of calculators that nobody knows anything about.
NOTHING_KNOWN = Claims()


def claims_of(card: ModelCard) -> Claims:
    """Return what a card says that the model was made for."""
    domain, record = domain_of(card), card.domain
    return Claims(
        charge_range=card.charge_range,
        periodic=record.periodic,
        isolated=record.isolated,
        stress=domain.stress,
        environments=domain.environments,
        highest_temperature=None if record.temperatures is None else record.temperatures[1],
    )


@dataclass(frozen=True)
class Subject:
    """A calculator, and what it was made for.

    Raises
    ------
    ValueError
        Without elements, and for symbols that no element has.
    """

    name: str
    elements: tuple[str, ...]
    """Symbols of the elements that it knows."""
    make: Maker
    """Returns a calculator for a structure, whose ``info["charge"]`` is its total charge."""
    make_fast: Maker
    """The same for dynamics, which may be less precise."""
    record: dict[str, Any]
    """What it is, as plain values: the results belong to them."""
    claims: Claims = NOTHING_KNOWN
    """What it was made for."""
    structures: tuple[Atoms, ...] = ()
    """Structures of the kind it is for, of a user or from beside the model."""
    model_sha256: str = ""
    folder: Path | None = None
    """That of a model."""

    def __post_init__(self) -> None:
        """Refuse subjects without elements, and elements that do not exist."""
        if not self.elements:
            raise ValueError(
                f"nothing says which elements {self.name} knows: give elements, such as H C N O"
            )
        if unknown := [symbol for symbol in self.elements if not atomic_numbers.get(symbol)]:
            raise ValueError(
                f"elements must be chemical symbols such as H C N O, got {', '.join(unknown)}"
            )

    def ready(self, atoms: Atoms, charge: float | None = None, *, fast: bool = False) -> Atoms:
        """Return a copy of a structure with a calculator.

        Parameters
        ----------
        atoms
            The structure.
        charge
            Total charge in e; by default that in ``info``, or 0.
        fast
            For dynamics.
        """
        copy = atoms.copy()
        copy.set_constraint()
        for name in ("initial_magmoms", "initial_charges"):
            copy.arrays.pop(name, None)
        copy.info = {k: v for k, v in atoms.info.items() if k in ("charge", "external_field")}
        total = atoms.info.get("charge", 0.0) if charge is None else charge
        copy.info["charge"] = float(total or 0.0)
        copy.calc = (self.make_fast if fast else self.make)(copy)
        return copy

    def energy(self, atoms: Atoms, charge: float | None = None) -> float:
        """Return the energy of a structure in eV; `charge` as of `ready`."""
        return float(self.ready(atoms, charge).get_potential_energy())

    def charges(self, atoms: Atoms) -> Float64[np.ndarray, " n_atoms"] | None:
        """Return the charges in e of a structure that has a calculator; None if it has none."""
        if "charges" not in atoms.calc.implemented_properties:
            return None
        return np.asarray(atoms.get_charges(), dtype=float)

    def knows(self, atoms: Atoms | Sequence[str]) -> bool:
        """Whether all elements of a structure, or of a list of symbols, are known."""
        symbols = atoms.get_chemical_symbols() if isinstance(atoms, Atoms) else atoms
        return set(symbols) <= set(self.elements)

    def covers(self, atoms: Atoms) -> bool:
        """Whether it also knows atoms that are bonded like those of a structure."""
        known = self.claims.environments
        if not self.knows(atoms) or known is None:
            return self.knows(atoms)
        return environments_of(from_ase(atoms, LONGEST_BOND)).first_outside(known) is None

    def takes_charge(self, charge: float) -> bool:
        """Whether a total charge in e is within what the subject was made for."""
        limits = self.claims.charge_range
        return limits is None or limits[0] <= charge <= limits[1]

    @property
    def knows_molecules(self) -> bool:
        """Whether it was made for isolated structures: true if nobody knows."""
        if self.claims.isolated is None:
            return self.claims.periodic is not True
        return self.claims.isolated

    @property
    def knows_crystals(self) -> bool:
        """Whether it was made for periodic structures: true if nobody knows."""
        return self.claims.periodic is not False

    @property
    def knows_stress(self) -> bool:
        """Whether it was made to give the stress: true if nobody knows."""
        return self.claims.stress is not False


def subject_of_model(
    model: str | Path,
    *,
    dtype: str = "float64",
    device: str = "auto",
    compile: Mode = "auto",
    structures: Sequence[Atoms] = (),
) -> Subject:
    """Return a model of phicalc, or a committee, as a subject.

    Parameters
    ----------
    model
        Name or folder.
    dtype
        Precision of the network for all but dynamics, which run in float32.
    device, compile
        As of `PhiCalculator`.
    structures
        Structures of the kind it is for; those beside the model come after them.

    Raises
    ------
    FileNotFoundError, ValueError
        If the model cannot be loaded.
    """
    members = members_of(model) if is_committee(model) else [find_model(model)]
    kind = CommitteeCalculator if is_committee(model) else PhiCalculator
    precise, fast = (
        kind(model, device=device, dtype=precision, compile=compile)
        for precision in (dtype, "float32")
    )
    card, folder = read_card(members[0]), Path(model) if is_committee(model) else members[0]
    return Subject(
        name=card.name,
        elements=tuple(card.potential["elements"]),
        make=lambda _: precise,
        make_fast=lambda _: fast,
        record={"models": [read_card(member).sha256 for member in members], "dtype": dtype},
        claims=claims_of(card),
        structures=(*structures, *reference_structures(folder)),
        model_sha256=card.sha256,
        folder=folder,
    )


def subject_of_spec(
    spec: CalculatorSpec, elements: Sequence[str], structures: Sequence[Atoms] = ()
) -> Subject:
    """Return a calculator given by name or import path as a subject.

    Parameters
    ----------
    spec
        A new calculator is made for every structure.
    elements
        Symbols of the elements to try.
    structures
        Structures of the kind it is for.

    Raises
    ------
    ImportError, ValueError
        If the calculator cannot be made, and as `Subject`.
    """
    record = spec.record()
    name = str(spec.name).rpartition(":")[2]
    subject = Subject(
        name, tuple(elements), spec.make, spec.make, record, structures=tuple(structures)
    )
    spec.try_out(subject.elements[0])
    return subject


def subject_of_calculator(
    calculator: Calculator,
    elements: Sequence[str],
    structures: Sequence[Atoms] = (),
    claims: Claims = NOTHING_KNOWN,
) -> Subject:
    """Return an ASE calculator as a subject.

    Parameters
    ----------
    calculator
        Used for all structures; one that reads ``info["charge"]`` for ions.
    elements
        Symbols of the elements to try.
    structures
        Structures of the kind it is for.
    claims
        What it was made for.
    """
    kind = type(calculator)
    record = {"class": f"{kind.__module__}.{kind.__qualname__}", "of": calculator.todict()}
    return Subject(
        kind.__name__,
        tuple(elements),
        lambda _: calculator,
        lambda _: calculator,
        record,
        claims,
        tuple(structures),
    )
