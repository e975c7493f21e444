"""What each electrostatic head gains, beside controls: `make bench ARGS="-k phi_heads"` (hours).

And what the Φ-Module gains by the amount of data: `-k phi_amount`; what a short cutoff costs with
and without charge equilibration: `-k phi_cutoff`; what the optimizer does: `-k phi_optimizer`; and
how heads do that learn charges, too, and let the network see them: `-k charge_feedback`; TiO2 and
water with and without electrostatics: `-k phi_oxide`.

Every head is trained with the same backbone, recipe, data and seeds, on energies and forces only
(`phi_errors/*.yaml`, `error_cost/dipeptides.yaml`, `models/benchmarks/water-pbe0/train.yaml` with
32 channels); errors are those on the validation frames (water: test frames) after the last epoch.
The controls are ``none`` (no electrostatics) and ``random`` (a random graph in place of the
structure, as many weights as ``solve``).

Parts can be chosen by PHICALC_BENCH_SETS, PHICALC_BENCH_HEADS, PHICALC_BENCH_DEGREES and
PHICALC_BENCH_SEEDS (names or numbers with commas between them). Runs are kept in
PHICALC_BENCH_FOLDER (``runs/phi_errors`` by default) and continued from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import pytest
from safetensors.numpy import load_file

from phicalc.system import keep_freed_memory
from phicalc.training import train_from_yaml

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("PHICALC_BENCH_FOLDER", "runs/phi_errors"))
#: Recipe, epochs (a minute or two of one core), and the frames that errors are taken from.
SETS: dict[str, tuple[Path, int, str]] = {
    "dipeptides": (HERE / "error_cost" / "dipeptides.yaml", 5, "valid"),
    "carbon_chains": (HERE / "phi_errors" / "carbon_chains.yaml", 4, "valid"),
    "nacl_clusters": (HERE / "phi_errors" / "nacl_clusters.yaml", 4, "valid"),
    "ag3": (HERE / "phi_errors" / "ag3.yaml", 8, "valid"),
    "rocksalts": (HERE / "phi_errors" / "rocksalts.yaml", 6, "valid"),
    "water": (HERE.parents[1] / "models" / "benchmarks" / "water-pbe0" / "train.yaml", 3, "test"),
}
#: Water on and beside an oxide; too slow for all heads.
OXIDE = (HERE / "phi_errors" / "tio2.yaml", 3, "test")

HEADS = (
    "none", "random", "spectral", "dirichlet", "solve", "solve+coulomb", "latent", "latent+links",
    "qeq", "acks2",
)  # fmt: skip


def chosen(name: str, default: str) -> list[str]:
    """Values of an environment variable."""
    return os.environ.get(f"PHICALC_BENCH_{name}", default).split(",")


class Figures(NamedTuple):
    """What a training came to."""

    forces: float
    """Root mean square in meV/Å."""
    forces_mae: float
    """Mean absolute error in meV/Å: labels with outliers do not drown it."""
    energy: float
    """Root mean square in meV/atom."""
    charges: float
    """Root mean square in me; NaN without charges."""
    dipole: float
    """Root mean square of each component in me·Å; NaN without labels or charges."""
    weights: int
    seconds: float
    """Time of the training."""

    def line(self) -> str:
        """Give forces (mean absolute error), energy and time."""
        return (
            f"{self.forces:8.2f} ({self.forces_mae:.2f}) {self.energy:8.3f}  {self.seconds:.0f} s"
        )


ERRORS = ("forces", "forces_mae", "energy")


def columns(found: list[Figures], names: tuple[str, ...] = ERRORS) -> str:
    """Give means over seeds and their spread."""
    parts = []
    for name in names:
        values = [getattr(each, name) for each in found]
        spread = stdev(values) if len(values) > 1 else float("nan")
        parts.append(f"{mean(values):8.3f} ± {spread:5.3f}")
    return "   ".join(parts)


def errors_of(data: str, head: str, degree: str, seed: str, part: float = 1.0) -> Figures:
    """Figures of a network trained on part of the data."""
    epochs = round(SETS[data][1] / part)  # as many steps
    name = f"{data}_{head}_l{degree}_s{seed}{'' if part == 1 else f'_part{part}'}"
    settings = {"seed": seed, "model.head": head, "model.backbone.l_max": degree}
    return trained(data, name, {**settings, "data.train_fraction": part}, epochs)


def trained(data: str, name: str, settings: dict[str, object], epochs: int) -> Figures:
    """Train on a set, unless that was done, and return what it came to."""
    recipe, _, split = {**SETS, "tio2": OXIDE}[data]
    output = FOLDER / name
    if not (output / "metrics.json").is_file():
        run = {"output": output, "max_epochs": epochs, "validate_every": epochs, "compile": "false"}
        run |= {"model.backbone.channels": 32, "optimizer.name": "soap", "optimizer.lr": 0.03}
        settings = {**run, **settings}
        changes = [f"{key}={value}" for key, value in settings.items()]
        train_from_yaml(recipe, changes, lambda _: None)
    found = json.loads((output / "metrics.json").read_text())
    metrics = found[split]["metrics"]
    weights = load_file(output / "model" / "weights.safetensors")
    return Figures(
        metrics["forces_rmse"],
        metrics["forces_mae"],
        metrics["energy_rmse"],
        metrics.get("charges_rmse", float("nan")),
        metrics.get("dipole_rmse", float("nan")),
        sum(each.size for each in weights.values()),
        found["seconds"],
    )


@pytest.mark.parametrize("degree", chosen("DEGREES", "2,1,0"))
@pytest.mark.parametrize("data", chosen("SETS", ",".join(SETS)))
def test_phi_heads(
    data: str, degree: str, record: Callable[[str, float], None], shared_data
) -> None:
    shared_data("spice_dipeptides_mbis_val.xyz.gz")
    keep_freed_memory()
    seeds = chosen("SEEDS", "1,2,3")
    print(
        f"\n{data}, l = {degree}, {len(seeds)} seeds (± spread): forces meV/Å, their mean absolute "
        "error, energy meV/atom; weights; seconds of training"
    )
    for head in chosen("HEADS", ",".join(HEADS)):
        found = [errors_of(data, head, degree, seed) for seed in seeds]
        for name in ERRORS:
            record(f"{data} l{degree} {head} {name}", mean(getattr(each, name) for each in found))
        size, seconds = found[0].weights, mean(each.seconds for each in found)
        print(f"  {head:<14} {columns(found)}   {size:6d} {seconds:5.0f}", flush=True)
        assert all(each.forces > 0 for each in found)


def test_phi_amount_of_data(record: Callable[[str, float], None], shared_data) -> None:
    shared_data("xtb_carbon_chain.xyz.gz")
    keep_freed_memory()
    print("\ncarbon chains, l = 2, seed 1, as many steps for any part: forces, energy (meV/atom)")
    for part in (0.05, 0.25, 0.5, 1.0):
        for head in ("none", "solve"):
            found = errors_of("carbon_chains", head, "2", "1", part)
            print(f"  {100 * part:3.0f} %  {head:<8} {found.forces:8.2f} {found.energy:8.3f}")
            record(f"carbon chains, {part} of the data, {head}, forces (meV/Å)", found.forces)
            assert found.forces > 0


def cutoff_errors(data: str, head: str, cutoff: float) -> Figures:
    """Figures of a network with another cutoff."""
    settings = {"seed": 1, "model.head": head, "model.cutoff": cutoff}
    return trained(data, f"{data}_{head}_cutoff{cutoff}", settings, SETS[data][1])


@pytest.mark.parametrize("data", ["dipeptides", "nacl_clusters", "water"])
def test_phi_cutoff(data: str, record: Callable[[str, float], None], shared_data) -> None:
    shared_data("spice_dipeptides_mbis_val.xyz.gz")
    keep_freed_memory()
    print(
        f"\n{data}, l = 2, seed 1: forces meV/Å (mean absolute), energy meV/atom, time of training"
    )
    for head, cutoff in (("none", 5.0), ("none", 3.0), ("qeq", 3.0)):
        found = cutoff_errors(data, head, cutoff)
        print(f"  {head} {cutoff} Å: {found.line()}", flush=True)
        record(f"{data} {head} cutoff {cutoff} forces (meV/Å)", found.forces)
        assert found.forces > 0


def oxide_errors(head: str) -> Figures:
    """Figures of a network of TiO2 and water."""
    settings = {"seed": 1, "model.head": head}
    return trained("tio2", f"tio2_{head}", settings, OXIDE[1])


def test_phi_oxide(record: Callable[[str, float], None], shared_data) -> None:
    shared_data("tio2_water_optb88_subset.xyz.gz")
    keep_freed_memory()
    print("\nTiO2 and water, l = 2, seed 1: forces meV/Å (mean absolute), energy meV/atom")
    for head in ("none", "latent"):
        found = oxide_errors(head)
        print(f"  {head:<8} {found.line()}", flush=True)
        record(f"TiO2 and water, {head}, forces (meV/Å)", found.forces)
        assert found.forces > 0


#: Heads that learn charges as well, and what the network gets to see of them.
FEEDBACK: dict[str, dict[str, object]] = {
    "none": {"model.head": "none"},
    "latent": {"model.head": "latent"},
    "solve": {"model.head": "solve"},
    "solve+coulomb": {"model.head": "solve+coulomb"},
    "qeq": {"model.head": "qeq"},
    "qeq, embedding": {"model.head": "qeq", "model.feedback": "embedding"},
    "acks2": {"model.head": "{name: acks2, hardness: environment}"},
    "qeq, network": {"model.head": "qeq", "model.feedback": "network"},
    "qeq, network, charges first": {
        "model.head": "qeq",
        "model.feedback": "network",
        "loss.energy.start": 0.4,
        "loss.forces.start": 0.4,
    },
}


def feedback_errors(data: str, kind: str, seed: str) -> Figures:
    """Figures of a network trained on charges, too."""
    settings = {"seed": seed, "model.backbone.l_max": 2, **FEEDBACK[kind]}
    if kind != "none":
        settings["loss.charges.weight"] = 1.0
    if kind.startswith("qeq"):
        settings["model.head"] = "{name: qeq, hardness: environment}"
    name = f"{data}_charges_{kind.replace(', ', '_').replace(' ', '_')}_s{seed}"
    return trained(data, name, settings, SETS[data][1])


@pytest.mark.parametrize("data", ["carbon_chains", "nacl_clusters", "ag3", "rocksalts"])
def test_charge_feedback(data: str, record: Callable[[str, float], None], shared_data) -> None:
    shared_data("xtb_carbon_chain.xyz.gz")
    keep_freed_memory()
    seeds = chosen("SEEDS", "1,2,3")
    print(
        f"\n{data}, l = 2, {len(seeds)} seeds (± spread): forces meV/Å, their mean absolute error, "
        "energy meV/atom; charges me; dipole me·Å"
    )
    for kind in FEEDBACK:
        found = [feedback_errors(data, kind, seed) for seed in seeds]
        print(f"  {kind:<28} {columns(found, (*ERRORS, 'charges', 'dipole'))}", flush=True)
        record(f"{data} {kind} forces (meV/Å)", mean(each.forces for each in found))
        assert all(each.forces > 0 for each in found)


@pytest.mark.parametrize("data", chosen("SETS", ",".join(SETS)))
def test_phi_optimizer(data: str, record: Callable[[str, float], None], shared_data) -> None:
    shared_data("spice_dipeptides_mbis_val.xyz.gz")
    keep_freed_memory()
    print(f"\n{data}, no head, l = 2, seed 1: forces meV/Å (mean absolute), energy meV/atom")
    for optimizer, rate in (("adam", 0.01), ("soap", 0.03)):
        settings = {"seed": 1, "model.head": "none", "model.backbone.l_max": 2}
        settings |= {"optimizer.name": optimizer, "optimizer.lr": rate}
        found = trained(data, f"{data}_{optimizer}", settings, SETS[data][1])
        print(f"  {optimizer}: {found.line()}", flush=True)
        record(f"{data} by {optimizer}, forces (meV/Å)", found.forces)
        assert found.forces > 0
