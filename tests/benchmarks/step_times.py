"""Times steps of an ASE calculator; also for environments that hold only that calculator.

``python step_times.py NAME DTYPE STEPS FILE…`` reads one structure per file, moves its atoms a
little before each step as dynamics does, asks for energy, forces, stress (where the structure is
periodic) and charges (where the calculator has them), and prints one JSON object per structure.
For this package ``--device cuda`` times a GPU, ``--plain`` what is not compiled, ``--fuse`` steps
whose operations a compiler has fused on a GPU, ``--repeat 4`` takes the structure four times along
each axis, and ``--head acks2`` another head, with random weights. ``water:333`` stands for a file
with so many molecules at the density of water.

NAME is ``model:NAME_OR_FOLDER`` or ``random:NAME_OR_FOLDER`` (the same network with random weights
for the elements of the structure) for this package, and for others ``mace:a`` and ``mace:s`` (two
sizes), ``symmetrix:a`` and ``symmetrix:s`` (the same in compiled C++), ``nequip:l1``,
``nequip:l2``, ``nequip-compiled:l1``, ``nep:nep4``, ``nep:qnep`` (with charges), ``chgnet:``. Their
weights are random, too: time does not depend on them. CHGNet has its own.

Times on a CPU are those of the processor, to which other programs matter less.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms

#: What needs more memory than this (GB) fails.
MEMORY = 12


def mace_model(atoms: Atoms, dtype: str, size: str) -> Any:
    """Make one of two layers: ``a``, 64 scalars and 64 vectors, 5 Å; ``s``, 64 scalars, 4.5 Å."""
    import mace.calculators  # noqa: F401  # first: it lets e3nn 0.4.4 load
    from e3nn import o3
    from mace.modules import ScaleShiftMACE, interaction_classes

    irreps, cutoff = {"a": ("64x0e + 64x1o", 5.0), "s": ("64x0e", 4.5)}[size]
    numbers = sorted(set(atoms.numbers.tolist()))
    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    return ScaleShiftMACE(
        r_max=cutoff, num_bessel=8, num_polynomial_cutoff=5, max_ell=3, interaction_cls=block,
        interaction_cls_first=block, num_interactions=2, num_elements=len(numbers),
        hidden_irreps=o3.Irreps(irreps), MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(numbers)), avg_num_neighbors=60.0, atomic_numbers=numbers,
        correlation=3, gate=torch.nn.functional.silu, atomic_inter_scale=1.0,
        atomic_inter_shift=0.0, radial_MLP=[64, 64, 64],
    )  # fmt: skip


def mace(atoms: Atoms, dtype: str, size: str) -> Any:
    """Take MACE as it comes."""
    model = mace_model(atoms, dtype, size)
    from mace.calculators import MACECalculator

    return MACECalculator(models=[model], device="cpu", default_dtype=dtype)


def symmetrix(atoms: Atoms, dtype: str, size: str) -> Any:
    """Take the same network in compiled C++, made for the processor (Symmetrix-XL)."""
    from symmetrix import Symmetrix

    folder = Path(mkdtemp())
    torch.save(mace_model(atoms, "float32", size), folder / "mace.model")
    tool = Path(sys.executable).parent / "symmetrix_extract_mace"
    command = [tool, "--model", folder / "mace.model", "--output", folder / "mace.json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Symmetrix(str(folder / "mace.json"), dtype=dtype)


#: Elements of NequIP, which is compiled once for all structures.
NEQUIP_TYPES = ["H", "C", "N", "O", "Na", "Cl"]
NEQUIP = {
    "l2": {"r_max": 5.0, "num_layers": 4, "l_max": 2, "radial_mlp_depth": 2},
    "l1": {"r_max": 4.5, "num_layers": 3, "l_max": 1, "radial_mlp_depth": 1},
}


def nequip_model(dtype: str, size: str) -> tuple[Any, list[Any]]:
    """Make one of 32 features, and what turns structures into its input."""
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    model = NequIPGNNModel(
        seed=0, model_dtype=dtype, type_names=NEQUIP_TYPES, parity=True, num_features=32,
        radial_mlp_width=64, avg_num_neighbors=60.0, **NEQUIP[size],
    )  # fmt: skip
    if not callable(getattr(model, "forward", None)) or isinstance(model, torch.nn.ModuleDict):
        model = model["sole_model"]
    mapper = ChemicalSpeciesToAtomTypeMapper(model_type_names=NEQUIP_TYPES)
    return model, [mapper, NeighborListTransform(r_max=NEQUIP[size]["r_max"])]


def nequip(atoms: Atoms, dtype: str, size: str) -> Any:
    """Take NequIP as it comes."""
    from nequip.ase import NequIPCalculator

    model, transforms = nequip_model(dtype, size)
    return NequIPCalculator(model=model.eval(), device="cpu", transforms=transforms)


def nequip_compiled(atoms: Atoms, dtype: str, size: str) -> Any:
    """Take NequIP compiled ahead of time (AOTInductor), as its authors do for dynamics.

    What is compiled is kept in $PHICALC_CACHE.
    """
    from nequip.data import from_ase
    from nequip.integrations.ase import NequIPCalculator
    from nequip.scripts import compile as compiling

    file = Path(os.environ["PHICALC_CACHE"]) / f"nequip_{size}_{dtype}.nequip.pt2"

    def load(path: str, key: str, model: Any = None, return_data_dict: bool = False) -> Any:
        model, transforms = nequip_model(dtype, size)
        data = from_ase(atoms)
        for transform in transforms:
            data = transform(data)
        return (model, data) if return_data_dict else model

    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        compiling.load_saved_model = load
        options = ["--mode", "aotinductor", "--device", "cpu", "--target", "ase"]
        compiling.main(["none", str(file), *options])
    types = {symbol: symbol for symbol in NEQUIP_TYPES}
    return NequIPCalculator.from_compiled_model(
        str(file), device="cpu", chemical_species_to_atom_type_map=types
    )


def nep(atoms: Atoms, dtype: str, version: str) -> Any:
    """Make a NEP4 (C++ of calorine) of cutoffs 6 and 4 Å and 30 neurons, ``qnep`` with charges."""
    from calorine.calculators import CPUNEP

    types = sorted(set(atoms.get_chemical_symbols()))
    radial, angular, basis, degrees, neurons = 5, 5, 9, 5, 30
    n_inputs = radial + angular * degrees
    outputs = 3 if version == "qnep" else 2  # weights of a neuron beside those of its inputs
    n_network = (n_inputs + outputs) * neurons * len(types) + outputs - 1
    n_descriptor = len(types) ** 2 * (radial + angular) * basis
    weights = np.random.default_rng(0).normal(scale=0.1, size=n_network + n_descriptor)
    name = "nep4_charge1" if version == "qnep" else "nep4"
    lines = [
        f"{name} {len(types)} {' '.join(types)}", "cutoff 6 4 200 100",
        f"n_max {radial - 1} {angular - 1}", f"basis_size {basis - 1} {basis - 1}",
        "l_max 4 2 0", f"ANN {neurons} 0", *map(repr, weights.tolist()), *["0.1"] * n_inputs,
    ]  # fmt: skip
    file = Path(mkdtemp()) / "nep.txt"
    file.write_text("\n".join(lines) + "\n")
    return CPUNEP(str(file))


def chgnet(atoms: Atoms, dtype: str, size: str) -> Any:
    """Take the weights that come with it; single precision only."""
    from chgnet.model.dynamics import CHGNetCalculator

    if dtype != "float32":
        raise NotImplementedError("CHGNet computes in float32")
    return CHGNetCalculator(use_device="cpu")


def phicalc(kind: str, model: str, atoms: Atoms, given: argparse.Namespace) -> Any:
    """One of our models, or its network with random weights."""
    from phicalc import PhiCalculator
    from phicalc.checkpoint import load_model
    from phicalc.potential import build_potential

    source: Any = model
    if kind == "random":
        config = load_model(model)[0].config
        elements = tuple(sorted(set(atoms.get_chemical_symbols())))
        config = dataclasses.replace(config, elements=elements, reference_energies=())
        if given.head:
            settings = config.to_dict() | {"head": given.head}
            config = type(config).from_dict(settings)
        source = build_potential(config, seed=0)
    compiled = not given.plain
    calculator = PhiCalculator(source, device=given.device, dtype=given.dtype, compile=compiled)
    if compiled and given.device == "cuda" and not given.fuse:
        calculator.model.predictor.mode = "auto"  # which records steps as they are
    return calculator


def make(atoms: Atoms, given: argparse.Namespace) -> Any:
    """Make a calculator for one structure."""
    kind, _, which = given.name.partition(":")
    return (
        OTHERS[kind](atoms, given.dtype, which)
        if kind in OTHERS
        else phicalc(kind, which, atoms, given)
    )


OTHERS = {
    "mace": mace, "symmetrix": symmetrix, "nequip": nequip, "nequip-compiled": nequip_compiled,
    "chgnet": chgnet, "nep": nep,
}  # fmt: skip


def read(file: str) -> Atoms:
    """Read a structure, or make a box of water."""
    kind, _, molecules = file.partition(":")
    if kind != "water":
        return ase.io.read(file)
    from phicalc.structures import water_box

    return water_box(int(molecules), seed=1)


def one_step(atoms: Atoms, rng: np.random.Generator, clock: Callable[[], float]) -> float:
    """Move the atoms and compute everything; returns seconds."""
    atoms.positions += rng.normal(scale=1e-3, size=(len(atoms), 3))
    start = clock()
    if atoms.pbc.all():
        atoms.get_stress()  # first: the same evaluation gives the rest
    atoms.get_potential_energy()
    atoms.get_forces()
    if "charges" in atoms.calc.implemented_properties:
        atoms.get_charges()
    return clock() - start


def limit_memory() -> None:
    """Let what needs too much memory fail."""
    limit = int(MEMORY * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def peak(device: str) -> float:
    """Largest amount of memory in use so far, in MB."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20


def main() -> None:
    """Time every structure named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("name", "dtype", "steps"):
        parser.add_argument(name)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--fuse", action="store_true")
    parser.add_argument("--head")
    parser.add_argument("--repeat", type=int, nargs="+", default=[1])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.device == "cpu":
        limit_memory()
    for file, repeat in itertools.product(given.files, given.repeat):
        atoms = read(file) * (repeat, repeat, repeat)
        atoms.calc = make(atoms, given)
        rng = np.random.default_rng(0)
        clock = time.process_time if given.device == "cpu" else time.perf_counter
        first = one_step(atoms, rng, time.perf_counter)
        one_step(atoms, rng, clock)
        times = [one_step(atoms, rng, clock) for _ in range(int(given.steps))]
        record = {
            "file": file, "atoms": len(atoms), "ms": 1e3 * float(np.median(times)),
            "fastest_ms": 1e3 * min(times), "first_s": first, "peak_mb": peak(given.device),
        }  # fmt: skip
        print("RESULT " + json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
