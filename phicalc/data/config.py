"""Settings: which files hold the labelled structures, under which names, and how they are split."""

from dataclasses import dataclass
from typing import Annotated, Literal

from phicalc.schema import AtLeast, Between, NotEmpty, checked, settings


@settings
@dataclass(frozen=True)
class KeysConfig:
    """Names under which the data keep each label (`calc` results, `info` or `arrays`).

    Raises
    ------
    ValueError
        For a setting of the wrong type, and a virial named as stress.
    """

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"
    """Stress in eV/Å³, tension positive."""
    virial: str = "virial"
    """Virial ``−V σ`` in eV, taken where a structure has no stress."""
    charges: str = "charges"
    dipole: str = "dipole"
    polarizability: str = "polarizability"
    """In e Å²/V, for open structures; of crystals, that of one cell in the macroscopic field."""
    born_charges: str = "bec"
    """Nine numbers ``∂μ_α/∂r_β`` in e for each atom, β first."""
    total_charge: str = "charge"
    dipole_origin: Literal["centre_of_mass", "coordinates"] = "centre_of_mass"
    """What the dipoles of *charged* structures refer to; phicalc uses the center of mass."""

    def __post_init__(self) -> None:
        """Check every field, and that no virial passes for a stress."""
        checked(self)
        if "virial" in self.stress.lower():
            raise ValueError(
                f"'stress' is the key {self.stress!r}: a virial is −V σ in eV, not a stress in "
                f"eV/Å³. Name it as virial: {self.stress}, and leave stress out"
            )


@settings
@dataclass(frozen=True)
class DataConfig:
    """Where the labelled structures are and how they are divided.

    ``split`` says which frames of ``train`` are held out for validation and test: ``random``
    (drawn with ``split_seed``), ``last`` (the last frames of the list, test after validation),
    ``key`` (frames whose ``info[split_key]`` is in ``valid_values`` / ``test_values``; without
    ``valid_values``, frames for validation are drawn from those that are not for test) or
    ``files`` (nothing is kept out of ``train``; ``valid`` and ``test`` name separate files).

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range, and for settings that contradict each
        other.
    """

    train: Annotated[tuple[str, ...], NotEmpty]
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    split: Literal["random", "last", "key", "files"] = "random"
    valid_count: Annotated[int, AtLeast(0)] | None = None
    """Frames held out for validation; by default `valid_fraction` of all."""
    valid_fraction: Annotated[float, Between(0, 1, "[)")] = 0.1
    test_count: Annotated[int, AtLeast(0)] = 0
    split_seed: int = 0
    split_key: str = "split"
    valid_values: tuple[str, ...] = ("val", "valid", "validation")
    test_values: tuple[str, ...] = ("test",)
    keys: KeysConfig = KeysConfig()
    reference_energies: dict[str, float] | None = None
    """Energy of each element in eV; fitted to the training energies by default."""
    max_frames: Annotated[int, AtLeast(1)] | None = None
    """Use only so many frames from the start of the list (for trials)."""
    train_fraction: Annotated[float, Between(0, 1, "(]")] = 1.0
    """Fraction of the training frames to use, drawn with `split_seed`; validation and test stay the
    same (for learning curves)."""

    def __post_init__(self) -> None:
        """Check every field, then what several say together."""
        checked(self)
        if (self.split == "files") != bool(self.valid or self.test):
            raise ValueError(
                "'valid' and 'test' name files exactly when 'split' is 'files'; got "
                f"split={self.split!r}, valid={list(self.valid)}, test={list(self.test)}"
            )
        if both := sorted({*self.valid_values} & {*self.test_values}):
            raise ValueError(
                f"{', '.join(both)} is among 'valid_values' and 'test_values': frames that choose "
                "the epoch cannot report the error"
            )
        if both := sorted({*self.valid} & {*self.test} | {*self.train} & {*self.valid, *self.test}):
            raise ValueError(
                f"{', '.join(both)} is named twice among 'train', 'valid' and 'test': errors on "
                "frames that a training has seen say nothing"
            )
