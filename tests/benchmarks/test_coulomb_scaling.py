"""Energy and forces of fixed point charges, by size: `make bench ARGS="-k coulomb_scaling"`.

Rock salt, rattled by 0.05 Å, on one thread in float64, beside the PME and P3M of torch-pme and the
PME of nvalchemi-toolkit-ops. For each engine and size the fastest parameters are looked for with
which the measured rms force error is below 1e-4 of the rms force; they are timed in a process of
their own. The pair list is given (planning stands in a column of its own). Memory is the rise of
the peak of the process over what it held with the pair list.

PHICALC_BENCH_DTYPE=float32 lets the other libraries compute in single precision; the sums of this
package are in double precision always.

Up to 4096 ions; PHICALC_BENCH_LARGE=1 adds 32768 and 110592, which takes a quarter of an hour more.
What needs more than PHICALC_BENCH_MEMORY GB (8 by default) is left out by name.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vesin
from ase import Atoms
from ase.build import bulk
from torch import Tensor

from phicalc.electrostatics import CoulombSettings, CoulombSum, plan_coulomb
from phicalc.graph import from_ase
from phicalc.system import keep_freed_memory
from phicalc.units import COULOMB_CONSTANT

#: Conventional cells along each edge: 8 n³ ions.
SMALL, LARGE = (2, 4, 8), (16, 24)
#: Accuracy in eV/Å and method of the reference: 1e-4 of the rms force is 2e-5 eV/Å.
REFERENCES = {
    2: (1e-9, "ewald"), 4: (1e-9, "ewald"), 8: (1e-9, "ewald"), 16: (1e-8, "mesh"),
    24: (1e-6, "mesh"),  # memory
}  # fmt: skip
MEMORY = float(os.environ.get("PHICALC_BENCH_MEMORY", "8"))
GOAL = 1e-4
#: Precision of the other libraries.
DTYPE = getattr(torch, os.environ.get("PHICALC_BENCH_DTYPE", "float64"))
POINT = 0.02
#: Decays α r_c of the pair sum at which it is about as accurate as the goal, and cutoffs in Å.
DECAYS = (3.4, 3.6)
CUTOFFS = (4.0, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 10.0)

Work = Callable[[], Tensor]
Parameters = dict[str, Any]
Candidates = Iterator[list[Parameters]]


def rock_salt(edge: int) -> tuple[Atoms, Tensor]:
    """Return 8 n³ rattled ions and their charges."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(edge)
    atoms.rattle(0.05, seed=1)
    return atoms, torch.where(torch.as_tensor(atoms.numbers) == 11, 1.0, -1.0).double()


def pairs_of(atoms: Atoms, cutoff: float, full: bool) -> tuple[Tensor, Tensor]:
    """Pair list and shifts; sorted by the first atom if it is full."""
    search = vesin.NeighborList(cutoff=cutoff, full_list=full, sorted=full)
    first, second, shifts = search.compute(atoms.positions, atoms.cell.array, True, "ijS")
    index = torch.as_tensor(np.stack([first, second]).astype(np.int64))
    return index, torch.as_tensor(shifts.astype(np.int32))


def forces_of(energy: Tensor, positions: Tensor) -> Tensor:
    """Force of an energy in e²/Å, in eV/Å."""
    return -COULOMB_CONSTANT * torch.autograd.grad(energy, positions)[0]


class Phicalc:
    """The sum this package chooses by itself."""

    package = "phicalc"

    @staticmethod
    def candidates(edge: int, start: Parameters) -> Candidates:
        """Yield one list, from loose to tight."""
        loosest = start["accuracy"] * 1.4 if start else 4e-4
        yield [{"accuracy": loosest / 1.4**step} for step in range(14)]

    @staticmethod
    def make(atoms: Atoms, q: Tensor, accuracy: float, method: str = "auto") -> tuple[Work, str]:
        settings = CoulombSettings(accuracy, method)  # type: ignore[arg-type]  # from the command line
        smearing = torch.full_like(q, POINT)
        graph = plan_coulomb(from_ase(atoms, 1.0), smearing, settings, q)
        positions = graph.positions.requires_grad_()
        plan = graph.coulomb
        assert plan is not None

        def work() -> Tensor:
            energy = CoulombSum(graph, smearing).energy(q).sum()
            return -torch.autograd.grad(energy, positions)[0]

        waves = f"{plan.kvectors.shape[1]} k"
        if plan.mesh is not None:
            waves = "mesh {} {} {} order {}".format(*plan.mesh[0].tolist())
        return (
            work,
            f"{accuracy:.1e} eV/Å: {plan.pair_index.shape[1] / len(q):.0f} pairs/ion, {waves}",
        )


class TorchPme:
    """PME or P3M of torch-pme; its meshes are powers of two."""

    package = "torchpme"
    calculator, nodes = "PMECalculator", 7

    @staticmethod
    def candidates(edge: int, start: Parameters) -> Candidates:
        """Yield a list of cutoffs for each mesh: the wider the pairs, the smoother the rest."""
        meshes = [2**power for power in range(3, 10)]
        for points in (n for n in meshes if 0.2 < 5.64 * edge / n < 0.9):
            for decay in [start["decay"]] if start else DECAYS:
                yield [{"decay": decay, "cutoff": r, "points": points} for r in CUTOFFS]

    @classmethod
    def make(
        cls, atoms: Atoms, q: Tensor, decay: float, cutoff: float, points: int
    ) -> tuple[Work, str]:
        import torchpme

        index, shifts = pairs_of(atoms, cutoff, full=False)
        index, shifts, q = index.T.contiguous(), shifts.to(DTYPE), q.to(DTYPE)
        cell = torch.as_tensor(atoms.cell.array, dtype=DTYPE)
        positions = torch.as_tensor(atoms.positions, dtype=DTYPE).requires_grad_()
        potential = torchpme.CoulombPotential(smearing=cutoff / decay / math.sqrt(2))
        # It takes 2 L / spacing + 1 points, rounded up to a power of two.
        spacing = 2 * float(cell[0, 0]) / (points - 1.5)
        engine = getattr(torchpme, cls.calculator)
        calculator = engine(potential, mesh_spacing=spacing, interpolation_nodes=cls.nodes)
        calculator.to(dtype=DTYPE)

        def work() -> Tensor:
            vectors = positions[index[:, 1]] - positions[index[:, 0]] + shifts @ cell
            felt = calculator(q[:, None], cell, positions, index, vectors.norm(dim=1))
            return forces_of((q[:, None] * felt).sum(), positions)

        return work, f"pairs to {cutoff:g} Å (α r {decay}), mesh {points}³, {cls.nodes} nodes"


class TorchP3M(TorchPme):
    """P3M of torch-pme with its largest number of nodes."""

    calculator, nodes = "P3MCalculator", 5


class NvalchemiPme:
    """PME of nvalchemi-toolkit-ops."""

    package = "nvalchemiops"

    @staticmethod
    def candidates(edge: int, start: Parameters) -> Candidates:
        """Yield a list of cutoffs for each spacing, order and decay."""
        names = ("decay", "spacing", "order")
        each = product(DECAYS, (0.35, 0.5, 0.7, 1.0), (4, 5, 6))
        for chosen in [[start[name] for name in names]] if start else each:
            yield [{"cutoff": r, **dict(zip(names, chosen, strict=True))} for r in CUTOFFS]

    @staticmethod
    def make(
        atoms: Atoms, q: Tensor, decay: float, cutoff: float, spacing: float, order: int
    ) -> tuple[Work, str]:
        from nvalchemiops.torch.interactions.electrostatics import particle_mesh_ewald

        index, shifts = pairs_of(atoms, cutoff, full=True)
        starts = torch.searchsorted(index[0].contiguous(), torch.arange(len(atoms) + 1)).int()
        index, q = index.int(), q.to(DTYPE)
        cell = torch.as_tensor(atoms.cell.array, dtype=DTYPE)[None]
        positions = torch.as_tensor(atoms.positions, dtype=DTYPE).requires_grad_()

        def work() -> Tensor:
            energy = particle_mesh_ewald(
                positions, q, cell, alpha=decay / cutoff, mesh_spacing=spacing, spline_order=order,
                neighbor_list=index, neighbor_ptr=starts, neighbor_shifts=shifts,
            )  # fmt: skip
            return forces_of(energy.sum(), positions)

        return work, f"pairs to {cutoff:g} Å (α r {decay}), mesh of {spacing:g} Å, order {order}"


ENGINES: dict[str, Any] = {
    "phicalc": Phicalc,
    "torch-pme PME": TorchPme,
    "torch-pme P3M": TorchP3M,
    "nvalchemi PME": NvalchemiPme,
}


# What follows runs in a process of its own -----------------------------------------------------


def error_of(forces: Tensor, exact: Tensor) -> float:
    """Rms error by rms force."""
    return float((forces.double() - exact).norm() / exact.norm())


def tune(engine: Any, edge: int, exact: Tensor, start: Parameters) -> Parameters | None:
    """Of each list take the first parameters that are accurate enough, of these the fastest."""
    atoms, q = rock_salt(edge)
    best, best_time = None, math.inf
    for candidates in engine.candidates(edge, start):
        for parameters in candidates:
            try:
                work = engine.make(atoms, q, **parameters)[0]
                work()
                begin = time.process_time()
                error = error_of(work(), exact)
            except (MemoryError, RuntimeError) as problem:
                print(f"{parameters}: {str(problem)[:200]}", file=sys.stderr)
                break
            spent = time.process_time() - begin
            if error <= GOAL:
                best, best_time = (parameters, spent) if spent < best_time else (best, best_time)
            if error <= GOAL or spent > 2 * best_time:
                break
    return best


def memory(entry: str) -> float:
    """Megabytes this process holds (VmRSS) or held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(entry))


def measure(engine: Any, edge: int, exact: Tensor, parameters: Parameters) -> dict[str, Any]:
    """Return times in ms, memory in MB and error with the parameters given."""
    engine.make(*rock_salt(2), **parameters)  # imports
    atoms, q = rock_salt(edge)
    start = time.perf_counter()
    work, label = engine.make(atoms, q, **parameters)
    planning = time.perf_counter() - start
    keep_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = memory("VmRSS")
    error = error_of(work(), exact)
    wall: list[float] = []
    cpu: list[float] = []
    first = time.perf_counter()
    while len(wall) < 3 or (time.perf_counter() - first < 5 and len(wall) < 50):
        start, busy = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    return {
        "label": label, "error": error, "planning": 1e3 * planning, "wall": 1e3 * min(wall),
        "cpu": 1e3 * min(cpu), "memory": memory("VmHWM") - before,
    }  # fmt: skip


def main(task: str, name: str, edge: str, folder: str, given: str = "{}") -> None:
    """Do one task and print its result as JSON on the last line."""
    torch.set_num_threads(1)
    limit = int(MEMORY * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    path = Path(folder) / f"{edge}.npy"
    if task == "reference":
        accuracy, method = REFERENCES[int(edge)]
        work, label = Phicalc.make(*rock_salt(int(edge)), accuracy, method)
        np.save(path, work().numpy())
        print(json.dumps({"label": label, "memory": memory("VmHWM")}))
        return
    if task == "tune":
        keep_freed_memory()
    exact = torch.as_tensor(np.load(path))
    engine = ENGINES[name]
    if task == "tune":
        print(json.dumps(tune(engine, int(edge), exact, json.loads(given))))
    else:
        print(json.dumps(measure(engine, int(edge), exact, json.loads(given))))


# The tests ---------------------------------------------------------------------------------------


def apart(task: str, name: str, edge: int, folder: Path, given: Parameters | None = None) -> Any:
    """Run `main` in a new process."""
    words = [task, name, str(edge), str(folder), json.dumps(given or {})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PHICALC_BENCH_MEMORY": str(MEMORY)}
    command = [sys.executable, __file__, *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        pytest.fail(f"{' '.join(words)}:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, ...]]:
    """Folder with converged forces, and the sizes of the boxes."""
    folder = tmp_path_factory.mktemp("references")
    edges = SMALL + (LARGE if os.environ.get("PHICALC_BENCH_LARGE") else ())
    print("\nreference forces")
    for edge in edges:
        made = apart("reference", "phicalc", edge, folder)
        print(f"  {8 * edge**3:7d} ions  {made['label']}, {made['memory']:.0f} MB", flush=True)
    return folder, edges


@pytest.mark.parametrize("name", list(ENGINES))
def test_coulomb_scaling(name: str, references: tuple[Path, tuple[int, ...]]) -> None:
    package = ENGINES[name].package
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not here: pip install "phicalc[bench]"')
    folder, edges = references
    print(f"\n{name:<15}   ions   wall ms    CPU ms  peak MB  plan ms     error  parameters")
    sizes: list[int] = []
    times: list[float] = []
    known: Parameters = {}
    for edge in edges:
        ions = 8 * edge**3
        best = apart("tune", name, edge, folder, known if edge in LARGE else None)
        if best is None:
            print(f"{'':15}{ions:7d}  nothing reaches {GOAL:g} within {MEMORY:g} GB", flush=True)
            continue
        row = apart("measure", name, edge, folder, best)
        print(
            f"{'':15}{ions:7d}{row['wall']:10.1f}{row['cpu']:10.1f}{row['memory']:9.0f}"
            f"{row['planning']:9.0f}{row['error']:10.1e}  {row['label']}",
            flush=True,
        )
        assert row["error"] <= GOAL
        known = best
        sizes.append(ions)
        times.append(row["cpu"])
    assert sizes, f"{name} never reached {GOAL:g}"
    logs = np.log([pair for pair in zip(sizes, times, strict=True) if pair[0] >= 512])
    if len(logs) > 1:
        exponent = np.polyfit(logs[:, 0], logs[:, 1], 1)[0]
        print(f"{'':15}CPU time grows like N^{exponent:.2f} from 512 ions on")


if __name__ == "__main__":
    main(*sys.argv[1:])
