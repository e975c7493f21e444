"""Several models as one ASE calculator: the mean of their results, and how far they disagree."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, InputError, all_changes

from phicalc.calculators.parameters import given_or_last
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.potential import Potential


class CommitteeCalculator(Calculator):
    """Mean results of several models, with their standard deviations as a measure of uncertainty.

    Results are those of `PhiCalculator`, averaged: energy, forces, stress, charges and dipole; the
    forces are the derivatives of the mean energy. What the members disagree in stands in
    `committee_results`, outside ASE's names:

    ================= ================= ========================================================
    name              shape, unit       standard deviation over the members (n − 1)
    ================= ================= ========================================================
    ``energy_std``    (), eV            of the energy
    ``forces_std``    (n_atoms,), eV/Å  of the force on each atom: √ of the sum over components
    ``charges_std``   (n_atoms,), e     of the charges, if all members have some
    ================= ================= ========================================================

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
        Parameters of the members: device, dtype, total_charge, … as for `PhiCalculator`.

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
        models: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | Potential],
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
        super().__init__()
        self.members = [PhiCalculator(model, **kwargs) for model in models]
        self.reset()
        self.force_threshold = force_threshold
        self.implemented_properties = [
            name
            for name in type(self).implemented_properties
            if all(name in member.implemented_properties for member in self.members)
        ]
        self._warned = False

    @property
    def committee_results(self) -> dict[str, np.ndarray]:
        """Standard deviations over the members by name; empty before the first calculation."""
        return dict(self._spread)

    def reset(self) -> None:
        """Forget the last structure and everything computed for it; members do, too."""
        super().reset()
        self._spread: dict[str, np.ndarray] = {}
        for member in self.members:
            member.reset()

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change parameters of all members (not their models) and drop all results.

        Returns the parameters that changed; errors are those of `PhiCalculator.set`.
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
        for member in self.members:
            member.calculate(atoms, properties, system_changes)
        found = [member.results for member in self.members]
        shared = [name for name in self.implemented_properties if all(name in r for r in found)]
        values = {name: np.array([results[name] for results in found]) for name in shared}
        self._spread = {
            f"{name}_std": _deviation(values[name])
            for name in ("energy", "forces", "charges")
            if name in values
        }
        self.results = {name: value.mean(axis=0) for name, value in values.items()}
        self.results |= {name: float(self.results[name]) for name in ("energy", "free_energy")}
        self._warn_if_unsure()

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
        """Say about which force the members disagree most; empty unless by more than a threshold.

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


def _deviation(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation over the first axis; of vectors its length."""
    variance = values.var(axis=0, ddof=1)
    return np.asarray(np.sqrt(variance.sum(axis=-1) if values.ndim == 3 else variance))
