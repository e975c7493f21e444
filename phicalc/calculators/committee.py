"""Several models as one ASE calculator: the mean of their results, and how far they disagree."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError, all_changes
from jaxtyping import Float64

from phicalc.calculators.loading import Source
from phicalc.calculators.locking import locked
from phicalc.calculators.parameters import ASE_ARGUMENTS
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.calculators.requests import given_or_last
from phicalc.calculators.uncertain import UncertainCalculator
from phicalc.inference.batch import BATCH_ATOMS
from phicalc.inference.concerns import Voice
from phicalc.inference.uncertainty import Uncertainty


class CommitteeCalculator(UncertainCalculator):
    """Mean results of several models, with their standard deviations as a measure of uncertainty.

    Results are those of `PhiCalculator`, averaged: energy, forces, stress, charges and dipole; the
    forces are the derivatives of the mean energy. `committee_results`, outside ASE's names, holds
    how far the members disagree:

    ================= ================= ========================================================
    name              shape, unit       standard deviation over the members (n − 1)
    ================= ================= ========================================================
    ``energy_std``    (), eV            of the energy
    ``energies_std``  (n_atoms,), eV    of the energies of the atoms
    ``forces_std``    (n_atoms,), eV/Å  of the force on each atom: √ of the sum over components
    ``charges_std``   (n_atoms,), e     of the charges, if all members have some
    ================= ================= ========================================================

    `get_uncertainty` gives the same under the names that single models have for it. Its ``outside``
    flags atoms that at least half of the members find unlike the training data, if members know.

    Members trained by ``phicalc train --members`` on the same frames disagree where frames are
    missing; where they agree they may be wrong together.

    Parameters
    ----------
    models
        A folder of members as ``phicalc train --members`` leaves it (``member_0``, ``member_1``,
        …), or at least two models as for `PhiCalculator`.
    force_threshold
        Warn, once for each calculator, when the force on an atom has a larger standard deviation,
        in eV/Å. None never warns.
    **kwargs
        ``atoms``, ``directory`` and ``label`` as for every ASE calculator; parameters of the
        members: device, dtype, total_charge, … as for `PhiCalculator`.

    Raises
    ------
    FileNotFoundError
        If the folder has no members.
    ase.calculators.calculator.InputError
        For fewer than two models, a threshold that is not positive, and as `PhiCalculator`.
    """

    implemented_properties: list[str] = list(PhiCalculator.implemented_properties)
    ignored_changes = PhiCalculator.ignored_changes

    def __init__(
        self,
        models: str | os.PathLike[str] | Sequence[Source],
        *,
        force_threshold: float | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(models, str | os.PathLike):
            models = members_of(models)
        if len(models) < 2:
            raise InputError(f"a committee needs at least 2 models, got {len(models)}")
        if force_threshold is not None and not force_threshold > 0:
            raise InputError(f"force_threshold must be positive (eV/Å), got {force_threshold}")
        own = {name: kwargs.pop(name) for name in ASE_ARGUMENTS if name in kwargs}
        atoms = own.pop("atoms", None)
        self.members: list[PhiCalculator] = []
        super().__init__(**own)
        self.members = [PhiCalculator(model, **kwargs) for model in models]
        _warn_of_twins(self.members)
        self.voice = Voice(self.members[0].parameters["strict"])
        for member in self.members:
            member.voice = self.voice  # what concerns all of them is voiced once
        self.reset()
        self.force_threshold = force_threshold
        self.implemented_properties = [
            name
            for name in type(self).implemented_properties
            if all(name in member.implemented_properties for member in self.members)
        ]
        self._warned = False
        if atoms is not None:
            atoms.calc = self

    @property
    def committee_results(self) -> dict[str, Float64[np.ndarray, "..."]]:
        """Standard deviations over the members by name; empty before the first calculation."""
        return dict(self._spread)

    deviations = committee_results
    why_certain = ""  # there always are several members

    @locked
    def reset(self) -> None:
        """Forget the last structure and everything computed for it; members do, too."""
        super().reset()
        self._spread: dict[str, np.ndarray] = {}
        self._uncertainty = None
        for member in self.members:
            member.reset()

    @locked
    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change parameters of all members (not their models) and drop all results.

        Returns the parameters that changed; other errors are those of `PhiCalculator.set`.

        Raises
        ------
        ase.calculators.calculator.InputError
            For the parameter ``model``.
        """
        if not kwargs:  # as ASE's constructor calls it, before there are members
            return {}
        if "model" in kwargs:
            raise InputError("a committee keeps its models; make another one")
        changed = [member.set(**kwargs) for member in self.members]
        self.reset()
        return changed[0]

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last calculation, charge and field included."""
        return self.members[0].check_state(atoms, tol)

    @locked
    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute mean and spread for a structure; errors are those of `PhiCalculator`."""
        atoms = given_or_last(atoms, self.atoms)
        super().calculate(atoms, properties, system_changes)
        self.results, self._spread = {}, {}  # nothing old may survive a failure below
        self._uncertainty = None
        for member in self.members:
            member.calculate(atoms, properties, system_changes)
        found = [member.results for member in self.members]
        self.results, self._spread = self._mean_and_spread(found)
        self._uncertainty = _as_uncertainty(self._spread, [m.last_distance for m in self.members])
        self._warn_if_unsure()

    @locked
    def batch(
        self, structures: Sequence[Atoms], *, stress: bool = False, max_atoms: int = BATCH_ATOMS
    ) -> list[dict[str, Any]]:
        """Return means and standard deviations for many structures at once.

        Parameters
        ----------
        structures, stress, max_atoms
            As of `PhiCalculator.batch`.

        Returns
        -------
        results
            For each structure, what `results` and `committee_results` would hold, and ``outside``
            if members know it.

        Raises
        ------
        ase.calculators.calculator.CalculatorError
            As `PhiCalculator.batch`.
        """
        members = [
            member.batch(structures, stress=stress, max_atoms=max_atoms) for member in self.members
        ]
        merged = []
        for found in zip(*members, strict=True):
            mean, spread = self._mean_and_spread(found)
            flags = [results["outside"] for results in found if "outside" in results]
            outside = {"outside": np.mean(flags, axis=0) > 0.5} if flags else {}
            merged.append(mean | spread | outside)
        return merged

    def _mean_and_spread(
        self, found: Sequence[dict[str, Any]]
    ) -> tuple[dict[str, Any], dict[str, Float64[np.ndarray, "..."]]]:
        """Return mean results of the members, and their standard deviations."""
        shared = [name for name in self.implemented_properties if all(name in r for r in found)]
        values = {name: np.array([results[name] for results in found]) for name in shared}
        spread = {
            f"{name}_std": _deviation(values[name])
            for name in ("energy", "energies", "forces", "charges")
            if name in values
        }
        mean: dict[str, Any] = {name: value.mean(axis=0) for name, value in values.items()}
        return mean | {name: float(mean[name]) for name in ("energy", "free_energy")}, spread

    def _warn_if_unsure(self) -> None:
        """Warn once where the members disagree more than the threshold."""
        if self._warned or self.force_threshold is None:
            return
        if text := self.disagreement(self.force_threshold):
            self._warned = True
            warnings.warn(
                f"{text}: this structure is unlike the training data. Further warnings of this "
                "calculator are left out",
                UserWarning,
                stacklevel=2,
            )

    def disagreement(self, threshold: float) -> str:
        """Name the force that the members disagree about most; empty below a threshold.

        Parameters
        ----------
        threshold
            Standard deviation of the force on an atom, in eV/Å.
        """
        spread = self._spread.get("forces_std", np.zeros(0))
        if not np.any(spread > threshold):
            return ""
        assert self.atoms is not None  # there are results
        atom = int(spread.argmax())
        return (
            f"the committee disagrees about the force on atom {atom} ({self.atoms.symbols[atom]}) "
            f"by {spread[atom]:.3g} eV/Å (threshold {threshold:g})"
        )

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """Return what files record about this calculator."""
        return {"members": [member.parameters["model"] for member in self.members]}

    def _get_name(self) -> str:
        """Name under which trajectories and databases record this calculator."""
        return "phicalc-committee"


def is_committee(models: str | os.PathLike[str] | Sequence[Any]) -> bool:
    """Whether these are several models, or a folder that holds members."""
    if not isinstance(models, str | os.PathLike):
        return True
    return bool(_member_folders(models))


def _member_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """Folders member_0, member_1, … in the order of their numbers."""
    numbered = {
        int(path.name[7:]): path
        for path in Path(folder).expanduser().glob("member_*")
        if path.name[7:].isdigit()
    }
    return [path for _, path in sorted(numbered.items())]


def members_of(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the models of a committee that ``phicalc train --members`` left in a folder.

    Raises
    ------
    FileNotFoundError
        If there are none, or the training of one has not got as far as a model.
    """
    members = _member_folders(folder)
    missing = [path.name for path in members if not (path / "model").is_dir()]
    if not members or missing:
        what = f"no model yet in {', '.join(missing)}" if missing else "no folders member_0, …"
        raise FileNotFoundError(
            f"{os.fspath(folder)!r} holds no committee: {what}. Give the output folder of "
            "`phicalc train --members`, or a list of models"
        )
    return [path / "model" for path in members]


def _deviation(
    values: Float64[np.ndarray, "n_members ..."],
) -> Float64[np.ndarray, "..."]:
    """Return the standard deviation over the members; of vectors, the length of theirs."""
    variance = values.var(axis=0, ddof=1)
    return np.asarray(np.sqrt(variance.sum(axis=-1) if values.ndim == 3 else variance))


def _warn_of_twins(members: Sequence[PhiCalculator]) -> None:
    """Warn of members that are one model: they agree, which says nothing."""
    digests = [member.card.sha256 for member in members if member.card is not None]
    if twins := len(digests) - len(set(digests)):
        warnings.warn(
            f"{twins} of {len(members)} members of the committee repeat another (the same weights "
            "and settings): they make the standard deviations too small. Name each model once",
            stacklevel=3,
        )


def _as_uncertainty(
    spread: Mapping[str, Float64[np.ndarray, "..."]],
    distances: Sequence[Float64[np.ndarray, " n_atoms"] | None],
) -> Uncertainty:
    """Return standard deviations over the members, with the median of their distances."""
    known = [distance for distance in distances if distance is not None]
    return Uncertainty(
        float(spread["energy_std"]),
        spread["energies_std"],
        spread["forces_std"],
        np.median(known, axis=0) if known else None,
    )
