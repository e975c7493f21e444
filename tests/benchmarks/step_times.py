"""Times steps of an ASE calculator; also for environments that hold only that calculator.

``python step_times.py NAME DTYPE STEPS FILE…`` reads one structure per file, moves its atoms a
little before each step as dynamics does, asks for energy, forces, stress (where the structure is
periodic) and charges (where the calculator has them), and prints one JSON object per structure.
For this package ``--device cuda`` times a GPU, ``--plain`` what is not compiled, ``--fuse`` steps
whose operations a compiler has fused on a GPU, ``--repeat 4`` takes the structure four times along
each axis, and ``--head acks2`` another head, with random weights. ``water:333`` stands for a file
with so many molecules at the density of water.

NAME is ``mace``, ``nequip``, ``chgnet``, or for this package ``model:NAME_OR_FOLDER`` and
``random:NAME_OR_FOLDER`` (the same network with random weights for the elements of the structure).
Weights of MACE and NequIP are random too: time does not depend on them. CHGNet has its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import resource
import time
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms

#: What needs more memory than this (GB) fails.
MEMORY = 12


def mace64(atoms: Atoms, dtype: str) -> Any:
    """Make one of 64 scalars and 64 vectors, two layers, cutoff 5 Å."""
    import mace.calculators  # first: it lets e3nn 0.4.4 load
    from e3nn import o3
    from mace.modules import ScaleShiftMACE, interaction_classes

    numbers = sorted(set(atoms.numbers.tolist()))
    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    torch.set_default_dtype(getattr(torch, dtype))
    model = ScaleShiftMACE(
        r_max=5.0, num_bessel=8, num_polynomial_cutoff=5, max_ell=3, interaction_cls=block,
        interaction_cls_first=block, num_interactions=2, num_elements=len(numbers),
        hidden_irreps=o3.Irreps("64x0e + 64x1o"), MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(numbers)), avg_num_neighbors=60.0, atomic_numbers=numbers,
        correlation=3, gate=torch.nn.functional.silu, atomic_inter_scale=1.0,
        atomic_inter_shift=0.0, radial_MLP=[64, 64, 64],
    )  # fmt: skip
    return mace.calculators.MACECalculator(models=[model], device="cpu", default_dtype=dtype)


def nequip(atoms: Atoms, dtype: str) -> Any:
    """Make one of degree 2, 32 features, four layers, cutoff 5 Å."""
    from nequip.ase import NequIPCalculator
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    types = sorted(set(atoms.get_chemical_symbols()))
    model = NequIPGNNModel(
        seed=0, model_dtype=dtype, type_names=types, r_max=5.0, num_layers=4, l_max=2, parity=True,
        num_features=32, radial_mlp_depth=2, radial_mlp_width=64, avg_num_neighbors=60.0,
    )  # fmt: skip
    if not callable(getattr(model, "forward", None)):
        model = model["sole_model"]
    try:
        mapper = ChemicalSpeciesToAtomTypeMapper(model_type_names=types)
    except TypeError:  # the name of this argument moves between releases
        mapper = ChemicalSpeciesToAtomTypeMapper(chemical_symbols=types)
    transforms = [mapper, NeighborListTransform(r_max=5.0)]
    return NequIPCalculator(model=model.eval(), device="cpu", transforms=transforms)


def chgnet(atoms: Atoms, dtype: str) -> Any:
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
    kind, _, model = given.name.partition(":")
    if model:
        return phicalc(kind, model, atoms, given)
    return {"mace": mace64, "nequip": nequip, "chgnet": chgnet}[kind](atoms, given.dtype)


def read(file: str) -> Atoms:
    """Read a structure, or make a box of water."""
    kind, _, molecules = file.partition(":")
    if kind != "water":
        return ase.io.read(file)
    from phicalc.structures import water_box

    return water_box(int(molecules), seed=1)


def one_step(atoms: Atoms, rng: np.random.Generator) -> float:
    """Move the atoms and compute everything; returns seconds."""
    atoms.positions += rng.normal(scale=1e-3, size=(len(atoms), 3))
    start = time.perf_counter()
    if atoms.pbc.all():
        atoms.get_stress()  # first: the same evaluation gives the rest
    atoms.get_potential_energy()
    atoms.get_forces()
    if "charges" in atoms.calc.implemented_properties:
        atoms.get_charges()
    return time.perf_counter() - start


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
        first = one_step(atoms, rng)
        one_step(atoms, rng)
        times = [one_step(atoms, rng) for _ in range(int(given.steps))]
        record = {
            "file": file, "atoms": len(atoms), "ms": 1e3 * float(np.median(times)),
            "fastest_ms": 1e3 * min(times), "first_s": first, "peak_mb": peak(given.device),
        }  # fmt: skip
        print("RESULT " + json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
