"""Models of all heads, trained on the same data, and kept."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.calculators.singlepoint import SinglePointCalculator
from torch import Tensor

from phicalc import PhiCalculator
from phicalc.labelling import CalculatorSpec
from phicalc.potential import Potential
from phicalc.system import keep_freed_memory
from phicalc.training import train_from_yaml

from .structures import far_pairs

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
FOLDER = Path(os.environ.get("PHICALC_BENCH_FOLDER", "runs/charge_physics"))
SEEDS = os.environ.get("PHICALC_BENCH_SEEDS", "1,2,3").split(",")
#: Names of heads; all by default.
CHOSEN = os.environ.get("PHICALC_BENCH_HEADS", "qeq,acks2,latent,solve+coulomb").split(",")

#: Epochs of each set.
EPOCHS = {"molecules": 8, "crystals": 8}
#: Heads of molecules, and of crystals: fields along their axes need formal charges of elements.
HEADS: dict[str, dict[str, dict[str, object]]] = {
    "molecules": {
        "qeq": {"model.head": "{name: qeq, hardness: environment}"},
        "acks2": {"model.head": "{name: acks2, hardness: environment}"},
        "latent": {"model.head": "latent"},
        "solve+coulomb": {"model.head": "solve+coulomb"},
    },
    "crystals": {
        "qeq": {"model.head": "{name: qeq, hardness: environment}"},
        "acks2": {
            "model.head": "{name: acks2, hardness: environment, formal_charges: element}",
        },
    },
}

HEADS = {
    data: {name: each for name, each in heads.items() if name in CHOSEN}
    for data, heads in HEADS.items()
}


def write_molecules(path: Path) -> None:
    """Write all frames at the level of GFN2-xTB that lie in the repository, or part of them."""
    files = {
        "tests/data/xtb_organics_test.xyz.gz": 1,
        "models/benchmarks/carbon-chains/xtb_carbon_chain.xyz.gz": 6,
        "models/benchmarks/nacl-clusters/xtb_nacl_clusters.xyz.gz": 12,
    }
    frames = []
    for name, step in files.items():
        frames += ase.io.read(REPOSITORY / name, f"::{step}")
    names = sorted({frame.info["molecule"] for frame in frames if "molecule" in frame.info})
    for frame in frames:  # molecules are held out whole
        if "molecule" in frame.info:
            held = names.index(frame.info["molecule"]) % 8 == 0
            frame.info["split"] = "val" if held else "train"
    ase.io.write(path, frames + _alone() + _parted(frames), format="extxyz")


def _labelled(atoms: Atoms, split: str) -> Atoms:
    """Return the atoms with energy, forces and charges by GFN2-xTB."""
    atoms.calc = CalculatorSpec().make(atoms)
    results = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "charges": atoms.get_charges(),
    }
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info["split"] = split
    return atoms


def _alone(copies: int = 48) -> list[Atoms]:
    """Return molecules and ions of the far pairs in the gas, their atoms displaced at random."""
    members = {str(atoms.symbols): (atoms, q) for pair in far_pairs().values() for atoms, q in pair}
    rng, frames = np.random.default_rng(1), []
    for atoms, charge in members.values():
        for _ in range(copies):
            displaced = Atoms(atoms.numbers, atoms.positions, info={"charge": charge})
            displaced.positions += rng.normal(0, 0.06, atoms.positions.shape)
            frames.append(_labelled(displaced, "train"))
    return frames


def _radius(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.positions - atoms.positions.mean(0), axis=1).max())


def _parted(frames: list[Atoms], number: int = 200) -> list[Atoms]:
    """Two of the frames at a time, 12 to 40 Å apart."""
    rng = np.random.default_rng(0)
    parted: list[Atoms] = []
    while len(parted) < number:
        first, second = (frames[i] for i in rng.integers(len(frames), size=2))
        if first.info["split"] != second.info["split"] or len(first) + len(second) > 40:
            continue
        shift = first.positions.mean(0) - second.positions.mean(0)
        shift[rng.integers(3)] += _radius(first) + _radius(second) + rng.uniform(12, 40)
        both = Atoms(
            np.append(first.numbers, second.numbers),
            np.vstack([first.positions, second.positions + shift]),
            info={"charge": int(first.info["charge"] + second.info["charge"])},
        )
        with contextlib.suppress(CalculationFailed):
            parted.append(_labelled(both, first.info["split"]))
    return parted


@cache
def trained(data: str, head: str, seed: str) -> Path:
    """Folder of a trained model."""
    output = (FOLDER / f"{data}_{head}_s{seed}").resolve()
    if not (output / "metrics.json").is_file():
        keep_freed_memory()
        FOLDER.mkdir(parents=True, exist_ok=True)
        if data == "molecules" and not (FOLDER / "molecules.xyz").is_file():
            write_molecules(FOLDER / "molecules.xyz")
        settings = {"output": output, "seed": seed, "max_epochs": EPOCHS[data]}
        settings |= {"validate_every": EPOCHS[data], **HEADS[data][head]}
        if data == "molecules":
            settings["data.train"] = f"[{(FOLDER / 'molecules.xyz').resolve()}]"
        changes = [f"{key}={value}" for key, value in settings.items()]
        train_from_yaml(HERE / f"{data}.yaml", changes, lambda _: None)
    return output


def weights_of(potential: Potential) -> dict[str, Tensor]:
    """Return the weights, without what the uncertainty of a trained model adds."""
    weights = potential.state_dict()
    return {name: each for name, each in weights.items() if not name.startswith("uncertainty.")}


def calculators(data: str, head: str) -> list[PhiCalculator]:
    """One for each seed."""
    return [
        PhiCalculator(trained(data, head, seed) / "model", dtype="float64", compile=False)
        for seed in SEEDS
    ]
