"""The calculator that labels: described by plain data, so that every process can make its own."""

import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from importlib.metadata import packages_distributions, version
from tempfile import mkdtemp
from typing import Any, Literal

from ase import Atoms
from ase.calculators.calculator import Calculator

from phicalc.hints import install_hint
from phicalc.schema import checked, settings
from phicalc.schema.words import hint

#: Calculators that have a name of their own, and tblite's name for the method.
XTB_METHODS = {"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB"}
OWN_CALCULATORS = (
    "phicalc:PhiCalculator", "phicalc.calculators.phicalculator:PhiCalculator",
    "phicalc:CommitteeCalculator", "phicalc.calculators.committee:CommitteeCalculator",
)  # fmt: skip
#: What the dipoles of ions refer to in calculators that are known.
DIPOLE_ORIGINS = {
    **dict.fromkeys(XTB_METHODS, "coordinates"),
    **dict.fromkeys(OWN_CALCULATORS, "centre_of_mass"),
}


@settings
@dataclass(frozen=True)
class CalculatorSpec:
    """Which calculator labels, and how it is told the total charge.

    xTB (through tblite, the extra ``label``) takes the total charge of a structure, its
    ``info["multiplicity"]`` (2S + 1) if there is one, and no magnetic moments: `ase.build.molecule`
    sets some that xTB refuses. Its periodic cells are computed at the Γ point only.

    Calculators that work with files do so in a new folder for each structure (two processes must
    not share one), which is removed afterwards, unless `arguments` give a ``directory``.

    Raises
    ------
    ValueError
        For a setting of the wrong type, and a name that is neither known nor an import path.
    """

    name: str = "gfn2-xtb"
    """``gfn2-xtb``, ``gfn1-xtb``, or an import path ``package.module:Class``."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the calculator; what JSON can hold."""
    charge_argument: str | None = None
    """For import paths: the keyword argument that takes the total charge, or ``info`` if the
    calculator reads ``atoms.info["charge"]``; None if it computes neutral structures only."""
    dipole_origin: Literal["coordinates", "centre_of_mass"] | None = None
    """For import paths: what the dipoles of ions refer to: ``coordinates`` (their origin) or
    ``centre_of_mass``. Needed where a calculator gives dipoles of ions, but for ours."""

    def __post_init__(self) -> None:
        """Check every field, and that the name is known or an import path."""
        checked(self)
        package, colon, name = self.name.partition(":")
        if self.name not in XTB_METHODS and not (package and colon and name):
            raise ValueError(
                f"calculator must be one of {', '.join(XTB_METHODS)} or an import path "
                f"package.module:Class, got {self.name!r}{hint(self.name, XTB_METHODS)}"
            )
        if self.dipole_origin is None:
            object.__setattr__(self, "dipole_origin", DIPOLE_ORIGINS.get(self.name))

    @property
    def is_xtb(self) -> bool:
        """Whether this is one of tblite's methods."""
        return self.name in XTB_METHODS

    def load(self) -> Any:
        """Return what makes the calculator when it is called.

        Raises
        ------
        ImportError
            If it is not installed, saying what to install.
        ValueError
            If the import path leads nowhere.
        """
        if self.is_xtb:
            return partial(_tblite(), method=XTB_METHODS[self.name], verbosity=0)
        module, _, name = self.name.partition(":")
        try:
            return getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"calculator {self.name!r}: {error}. Install it, or set PYTHONPATH to the folder "
                "of the module"
            ) from error
        except AttributeError as error:
            raise ValueError(f"calculator {self.name!r}: {error}; check the class") from error

    def make(self, atoms: Atoms) -> Calculator:
        """Make a new calculator for a structure, whose ``info["charge"]`` is its total charge.

        Raises
        ------
        ImportError
            If the calculator is not installed.
        ValueError
            For an ion, if the calculator cannot be told its charge.
        """
        charge = float(atoms.info["charge"])
        arguments = dict(self.arguments)
        if self.is_xtb:
            arguments["charge"] = charge
            if "multiplicity" in atoms.info:
                arguments["multiplicity"] = int(atoms.info["multiplicity"])
        elif self.charge_argument not in (None, "info"):
            arguments[self.charge_argument] = charge
        elif charge and self.charge_argument is None:
            raise ValueError(
                f"{atoms.get_chemical_formula()} has the total charge {charge:g} e, but nothing "
                f"says how {self.name} is told: give charge_argument, the keyword argument that "
                "takes it, or 'info' if the calculator reads atoms.info['charge']"
            )
        try:
            made = self.load()(**arguments)
        except TypeError as error:
            raise ValueError(f"calculator {self.name!r} does not take these: {error}") from error
        if not hasattr(made, "implemented_properties"):
            raise ValueError(f"{self.name} makes {type(made).__name__}, which is no ASE calculator")
        calculator: Calculator = made
        self._check(calculator, atoms)
        if not self.is_xtb and "directory" not in arguments and hasattr(calculator, "directory"):
            folder = mkdtemp(prefix="phicalc_label_")
            calculator.directory = folder
            weakref.finalize(calculator, shutil.rmtree, folder, ignore_errors=True)
        return calculator

    def try_out(self, symbol: str) -> None:
        """Make the calculator for a lone atom, so that what keeps it from working is said at once.

        Parameters
        ----------
        symbol
            Of an element that it knows.

        Raises
        ------
        ImportError
            If the calculator is not installed.
        ValueError
            If it cannot be made.
        """
        try:
            self.make(Atoms(symbol, info={"charge": 0.0}))
        except (ImportError, ValueError):
            raise
        except (Exception, SystemExit) as error:  # of whatever kind the calculator raises
            raise ValueError(
                f"calculator {self.name!r} cannot be made: {type(error).__name__}: {error}"
            ) from error

    def _check(self, calculator: Calculator, atoms: Atoms) -> None:
        """Refuse what a calculator would misunderstand in silence."""
        if self.is_xtb and (unknown := set(self.arguments) - set(calculator.default_parameters)):
            raise ValueError(
                f"{self.name} has no arguments {', '.join(sorted(unknown))}; it has "
                f"{', '.join(sorted(calculator.default_parameters))}"
            )
        offers_dipole = "dipole" in calculator.implemented_properties and not atoms.pbc.any()
        if atoms.info["charge"] and offers_dipole and self.dipole_origin is None:
            raise ValueError(
                f"{self.name} gives dipoles, which for ions depend on the origin: give "
                "dipole_origin, 'coordinates' or 'centre_of_mass'"
            )

    def prepare(self, atoms: Atoms) -> Atoms:
        """Copy a structure as the calculator wants it: constraints and, for xTB, moments go."""
        copy = atoms.copy()
        copy.set_constraint()
        if self.is_xtb:
            for name in ("initial_magmoms", "initial_charges"):
                copy.arrays.pop(name, None)
        return copy

    def record(self) -> dict[str, Any]:
        """Say what labels, for the file of provenance: name, arguments, package and version."""
        package = "tblite" if self.is_xtb else self.name.partition(":")[0].partition(".")[0]
        distributions = _installed().get(package, [])
        return {
            "name": self.name,
            "arguments": self.arguments,
            "charge_argument": "charge" if self.is_xtb else self.charge_argument,
            "dipole_origin": self.dipole_origin,
            "package": package,
            "version": version(distributions[0]) if distributions else "unknown",
        }


@cache
def _installed() -> Mapping[str, list[str]]:
    """Distributions that hold each package; to look through all of them takes half a second."""
    return packages_distributions()


def _tblite() -> Any:
    """Return tblite's ASE calculator."""
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise ImportError(f"xTB labels need tblite ({error}): {install_hint('label')}") from error
    return TBLite
