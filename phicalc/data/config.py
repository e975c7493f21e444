"""Settings: which files hold the labelled structures, under which names, and how they are split."""

from dataclasses import dataclass
from typing import Literal

from phicalc.schema import check_at_least


@dataclass(frozen=True)
class KeysConfig:
    """Names under which the data keep each label (`calc` results, `info` or `arrays`)."""

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"
    charges: str = "charges"
    dipole: str = "dipole"
    born_charges: str = "bec"
    """Compared with, never trained on: nine numbers ``∂μ_α/∂r_β`` for each atom, β first."""
    total_charge: str = "charge"
    dipole_origin: Literal["centre_of_mass", "coordinates"] = "centre_of_mass"
    """What the dipoles of *charged* structures refer to; phicalc uses the centre of mass."""


@dataclass(frozen=True)
class DataConfig:
    """Where the labelled structures are and how they are divided.

    ``split`` says which frames of ``train`` are kept out for validation and test: ``random``
    (drawn with ``split_seed``), ``last`` (the last frames of the list, test after validation),
    ``key`` (frames whose ``info[split_key]`` is in ``valid_values`` / ``test_values``) or
    ``files`` (nothing is kept out of ``train``; ``valid`` and ``test`` name files of their own).
    """

    train: tuple[str, ...]
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    split: Literal["random", "last", "key", "files"] = "random"
    valid_count: int | None = None
    """Frames kept for validation; by default `valid_fraction` of all."""
    valid_fraction: float = 0.1
    test_count: int = 0
    split_seed: int = 0
    split_key: str = "split"
    valid_values: tuple[str, ...] = ("val", "valid", "validation")
    test_values: tuple[str, ...] = ("test",)
    keys: KeysConfig = KeysConfig()
    reference_energies: dict[str, float] | None = None
    """Energy of each element in eV; fitted to the training energies by default."""
    max_frames: int | None = None
    """Use only the first frames of the list (for trials)."""
    train_fraction: float = 1.0
    """Part of the training frames that is used, drawn with `split_seed`; validation and test stay
    the same (for errors by amount of data)."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if not self.train:
            raise ValueError("'train' needs at least one file, got an empty list")
        if not 0 <= self.valid_fraction < 1:
            raise ValueError(f"'valid_fraction' must be in [0, 1), got {self.valid_fraction}")
        if not 0 < self.train_fraction <= 1:
            raise ValueError(f"'train_fraction' must be in (0, 1], got {self.train_fraction}")
        if (self.split == "files") != bool(self.valid or self.test):
            raise ValueError(
                "'valid' and 'test' name files exactly when 'split' is 'files'; got "
                f"split={self.split!r}, valid={list(self.valid)}, test={list(self.test)}"
            )
        check_at_least(0, valid_count=self.valid_count, test_count=self.test_count)
        check_at_least(1, max_frames=self.max_frames)
