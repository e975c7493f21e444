"""Error against cost of networks: `make bench ARGS="-k error_cost"` (hours; needs $PHICALC_DATA).

Every network is trained for the same number of epochs (20 on water, 15 on dipeptides), one seed,
with charge equilibration, as `models/benchmarks/water-pbe0/train.yaml` and
`error_cost/dipeptides.yaml` say. Such short runs compare networks, they do not show what any of
them can reach. The cost is that of the compiled network (energy and forces, no lists, no
electrostatics), one thread, float32: for 192 atoms of water and a molecule of 51.

PHICALC_BENCH_NETWORKS chooses some of `NETWORKS` by their places in the list ("0,7,8").
Runs are kept in PHICALC_BENCH_FOLDER (``runs/error_cost`` by default) and continued from there;
PHICALC_BENCH_CACHE is a folder that keeps what is compiled.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ase.io
import pytest
import torch
from ase import Atoms

from phicalc.checkpoint import load_model
from phicalc.compiled.network import with_compiled_networks
from phicalc.graph import from_ase
from phicalc.structures import water_box
from phicalc.system import keep_freed_memory
from phicalc.training import train_from_yaml

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("PHICALC_BENCH_FOLDER", "runs/error_cost"))
RECIPES = {
    "water": (HERE.parents[1] / "models" / "benchmarks" / "water-pbe0" / "train.yaml", 20, "test"),
    "dipeptides": (HERE / "error_cost" / "dipeptides.yaml", 15, "valid"),
}
#: Where the columns of `NETWORKS` belong in a configuration.
KEYS = (
    "backbone.channels", "backbone.edge_channels", "backbone.l_max", "backbone.hidden_l_max",
    "cutoff",
)  # fmt: skip
#: Channels, those on edges, highest degree inside and between layers, cutoff in Å.
NETWORKS = [(64, 64, 2, 0, 4.0), (64, 16, 2, 0, 4.0), (32, 32, 2, 0, 4.0), (32, 32, 2, 0, 3.5),
            (32, 32, 1, 0, 4.0), (32, 32, 0, 0, 4.0), (16, 16, 2, 0, 4.0), (64, 32, 2, 1, 4.0),
            (64, 16, 2, 1, 4.0), (32, 32, 2, 1, 4.0), (32, 16, 2, 1, 4.0)]  # fmt: skip


def chosen_networks() -> list[tuple[float, ...]]:
    """Those of `NETWORKS` that PHICALC_BENCH_NETWORKS asks for."""
    places = os.environ.get("PHICALC_BENCH_NETWORKS")
    return [NETWORKS[int(i)] for i in places.split(",")] if places else [*NETWORKS]


def work_of(model: Path, atoms: Atoms, cache: Path) -> Callable[[], object]:
    """Return the computation of features and their derivatives."""
    potential = load_model(model)[0].requires_grad_(False)
    network = with_compiled_networks(potential, cache, True).backbone
    graph = from_ase(atoms, potential.cutoff)
    graph = graph._replace(positions=graph.positions.requires_grad_())
    element = potential.element_of_number[graph.atomic_numbers]

    def work() -> object:
        features = network(potential.embedding[element], element, graph)
        return torch.autograd.grad(features.sum(), graph.positions)

    work()
    return work


def milliseconds(works: Sequence[Callable[[], object]], rounds: int = 20) -> list[float]:
    """Median time of each, taking turns: a noisy minute hits all of them."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, spent in zip(works, times, strict=True):
            for _ in range(5):
                start = time.perf_counter()
                work()
                spent.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(each) for each in times]


@pytest.mark.parametrize("data", RECIPES)
def test_error_cost(
    data: str, record: Callable[[str, float], None], tmp_path: Path, shared_data
) -> None:
    keep_freed_memory()
    recipe, epochs, split = RECIPES[data]
    frames = ase.io.read(shared_data("spice_dipeptides_mbis_val.xyz.gz"), ":")
    molecule = next(atoms for atoms in frames if len(atoms) == 51)
    structure = water_box(64) if data == "water" else molecule
    errors, works, cache = {}, [], Path(os.environ.get("PHICALC_BENCH_CACHE", tmp_path))
    for network in chosen_networks():
        name = f"{data}_" + "_".join(map(str, network))
        settings = dict(zip(KEYS, network, strict=True))
        output = FOLDER / name
        if not (output / "metrics.json").is_file():
            changes = [f"model.{key}={value}" for key, value in settings.items()]
            run = [f"output={output}", f"max_epochs={epochs}", f"validate_every={epochs}"]
            train_from_yaml(recipe, [*run, *changes], lambda _: None)
        errors[network] = json.loads((output / "metrics.json").read_text())[split]["metrics"]
        works.append(work_of(output / "model", structure, cache))
    print(f"\n{data}: channels, on edges, degrees, cutoff | forces meV/Å, energy meV/atom | ms")
    for (network, metrics), cost in zip(errors.items(), milliseconds(works), strict=True):
        forces, energy = metrics["forces_rmse"], metrics["energy_rmse"]
        print(f"  {network!s:<20} | {forces:6.2f} {energy:6.3f} | {cost:6.2f}", flush=True)
        name = f"{data}_" + "_".join(map(str, network))
        record(f"{name} forces (meV/Å)", forces)
        record(f"{name} cost (ms)", cost)
    forces = {network[2:4]: metrics["forces_rmse"] for network, metrics in errors.items()
              if network[:2] == (32, 32) and network[4] == 4.0}  # fmt: skip
    richer = [forces[degrees] for degrees in sorted(forces)]
    assert richer == sorted(richer, reverse=True)
