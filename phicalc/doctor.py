"""Is this installation sound? Versions, devices, compiler, and models against reference values."""

import json
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float64
from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import Requirement

from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.checkpoint import available_models
from phicalc.compiled import cache_folder
from phicalc.compiled.kernels import prepare_kernels
from phicalc.compiled.store import make_private
from phicalc.compiled.tracing import compile_functions, load_function, trace
from phicalc.compiled.trust import distrust
from phicalc.hints import install_hint
from phicalc.inference.concerns import DomainWarning
from phicalc.structures import evaluate_structures, read_structures, write_structures

#: Reference values of a model, in its folder.
REFERENCE_FILE = "reference.json"
#: Largest deviation from the reference values allowed to each precision of the network, by result:
#: eV/atom, eV/Å, eV/Å³ and e. Rounding makes a hundredth of it.
TOLERANCES = {
    "float64": {"energy": 1e-7, "forces": 1e-6, "stress": 1e-7, "charges": 1e-6},
    "float32": {"energy": 1e-5, "forces": 1e-3, "stress": 1e-5, "charges": 1e-4},
}
#: Optional libraries: what each is for, its extra, and options of pip.
OPTIONAL = {
    "matscipy": ("elastic constants", "materials", ""),
    "spglib": ("symmetry", "materials", ""),
    "pymatgen": ("structures of pymatgen", "materials", ""),
    "phonopy": ("phonons", "phonons", ""),
    "tblite": ("labels of xTB", "label", ""),
    "distributed": ("clusters of dask", "distributed", ""),
    "torch_cluster": ("another neighbor engine", "cluster", "--no-build-isolation"),
}


class Check(NamedTuple):
    """What one check found."""

    name: str
    ok: bool
    detail: str
    advice: str = ""
    """What to do, where it failed."""


def examine(*, compiling: bool = True, device: str = "auto") -> Iterator[Check]:
    """Check the installation, one thing after another.

    Parameters
    ----------
    compiling
        Try the compiler too, which takes some seconds.
    device
        Where the models are tried: "auto", "cpu", "cuda".

    Yields
    ------
    check
        As soon as it is done.
    """
    yield from _packages()
    yield _optional()
    yield _guarded("device", _device, "install the build of torch for your driver (pytorch.org)")
    yield _guarded(
        "cache for compiled models", _cache, "set PHICALC_CACHE to a folder you can write to"
    )
    if compiling:
        yield _guarded(
            "compiler",
            _compile,
            "install a C++ compiler (Debian, Ubuntu: apt-get install g++), or use compile=False",
        )
        yield Check("native sums over neighbors", True, _native())
    models = available_models()
    if not models:
        yield Check("models", False, "none found", "install phicalc again: its models are missing")
    for name, folder in sorted(models.items()):
        for dtype in TOLERANCES:
            yield check_model(name, folder, dtype=dtype, device=device)


def check_model(name: str, folder: Path, *, dtype: str, device: str = "auto") -> Check:
    """Compare a model's results with the reference values in its folder.

    Parameters
    ----------
    name
        How to call it.
    folder
        Model folder, with the file that `write_reference` makes.
    dtype
        Precision of the network.
    device
        Where to try it.
    """
    label = f"model {name}, {dtype}"
    if not (folder / REFERENCE_FILE).is_file():
        return Check(label, True, f"not compared: {folder} has no {REFERENCE_FILE}")

    def compare() -> str:
        worst = deviations(folder, dtype=dtype, device=device)
        allowed = TOLERANCES[dtype]
        text = ", ".join(f"{key} {value:.1e}" for key, value in worst.items())
        bad = [key for key, value in worst.items() if not value <= allowed[key]]
        if bad:
            limits = ", ".join(f"{key} {allowed[key]:.0e}" for key in bad)
            raise ValueError(f"deviates by {text} (allowed: {limits})")
        return f"as the reference to {text} (eV/atom, eV/Å, eV/Å³, e)"

    return _guarded(
        label,
        compare,
        "install phicalc again; if that does not help, report it with the output of phicalc info",
    )


def deviations(folder: Path, *, dtype: str, device: str = "auto") -> dict[str, float]:
    """Largest deviation of a model from its reference values, by result.

    Energies per atom in eV, forces in eV/Å, stress in eV/Å³, charges in e.
    """
    records = json.loads((folder / REFERENCE_FILE).read_text(encoding="utf-8"))
    frames = reference_structures(folder)
    calculator = PhiCalculator(folder, dtype=dtype, device=device, compile=False)
    worst: dict[str, float] = {}
    with warnings.catch_warnings():
        # Reference structures are there to be compared with, whatever the model was made for.
        warnings.simplefilter("ignore", DomainWarning)
        results = evaluate_structures(frames, calculator)
    for record, atoms in zip(records, results, strict=True):
        for key in TOLERANCES[dtype]:
            if key in record:
                found, expected = np.asarray(atoms.calc.results[key]), np.asarray(record[key])
                scale = len(atoms) if key == "energy" else 1
                deviation = float(np.abs(found - expected).max() / scale)
                worst[key] = max(worst.get(key, 0.0), deviation)
    return worst


def reference_structures(folder: Path) -> list[Atoms]:
    """Return the structures of the reference values in a model's folder; none without any."""
    path = folder / REFERENCE_FILE
    if not path.is_file():
        return []
    return [_structure(record) for record in json.loads(path.read_text(encoding="utf-8"))]


def write_reference(folder: Path, structures: Path) -> Path:
    """Save a model's results on some structures beside it, in double precision.

    For those who ship a model; do it on a machine whose tests pass.

    Parameters
    ----------
    folder
        Model folder.
    structures
        File with a few small structures of the kind the model is for.
    """
    calculator = PhiCalculator(folder, dtype="float64", device="cpu", compile=False)
    frames = evaluate_structures(read_structures(structures), calculator)
    return write_structures(folder / REFERENCE_FILE, frames)


def _structure(record: dict[str, Any]) -> Atoms:
    info = {"charge": record["charge"]} if "charge" in record else {}
    return Atoms(
        record["symbols"], record["positions"], cell=record["cell"], pbc=record["pbc"], info=info
    )


def _guarded(name: str, action: Callable[[], str], advice: str) -> Check:
    """Run a check; any exception is a failure of what it checks, and is told."""
    try:
        return Check(name, True, action())
    except Exception as error:  # whatever breaks, the doctor must go on to the next check
        return Check(name, False, f"{type(error).__name__}: {error}", advice)


def _packages() -> Iterator[Check]:
    """Compare the versions of what phicalc needs with the ranges it is written for."""
    yield Check("Python", True, platform.python_version())
    for text in requires("phicalc") or ():
        wanted = Requirement(text)
        if not _applies(wanted):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield Check(wanted.name, False, "not installed", f"pip install '{text}'")
            continue
        right = wanted.specifier.contains(found, prereleases=True)
        detail = found if right else f"{found}, but {wanted.specifier} is wanted"
        yield Check(wanted.name, right, detail, "" if right else f"pip install '{text}'")


def _applies(wanted: Requirement) -> bool:
    """Whether a requirement is one of the core, not of an extra."""
    if wanted.marker is None:
        return True
    try:
        return wanted.marker.evaluate({"extra": ""})
    except UndefinedEnvironmentName:
        return False


def _optional() -> Check:
    missing = [
        f"{name}: {use} ({install_hint(extra, options=options)})"
        for name, (use, extra, options) in OPTIONAL.items()
        if find_spec(name) is None
    ]
    return Check("optional libraries", True, "all there" if not missing else
                 "not installed: " + "; ".join(missing))  # fmt: skip


def _device() -> str:
    if torch.cuda.is_available():
        total = torch.cuda.mem_get_info()[1] / 2**30
        x = torch.ones(64, 64, device="cuda", dtype=torch.float64)
        if float((x @ x).sum()) != 64.0**3:
            raise RuntimeError(f"{torch.cuda.get_device_name()} multiplies matrices wrongly")
        return f"{torch.cuda.get_device_name()}, {total:.0f} GiB, CUDA {torch.version.cuda}"
    if shutil.which("nvidia-smi"):
        raise RuntimeError("there is a driver of NVIDIA, but this torch cannot use the GPU")
    return f"CPU, {torch.get_num_threads()} threads ({torch.backends.cpu.get_cpu_capability()})"


def _cache() -> str:
    folder = cache_folder()
    if folder is None:
        raise RuntimeError("this user has no home folder, so compiled models last one process")
    make_private(folder)
    if reason := distrust(folder):
        raise RuntimeError(reason)
    with tempfile.TemporaryFile(dir=folder):
        pass
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{folder}, {size / 1e6:.0f} MB"


def _native() -> str:
    """Build or load what compiled networks are faster with; they do without."""
    if prepare_kernels(cache_folder(), True):
        return "built and loaded"
    return "none: compiled networks are slower without (the log says why)"


def _compile() -> str:
    """Compile, load and run a small function, as models are."""
    inputs = [torch.linspace(0, 1, 8, dtype=torch.float64)]

    def function(x: Float64[torch.Tensor, " n"]) -> list[Float64[torch.Tensor, " n"]]:
        return [x.sin() + 1]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "function.pt2"
        compile_functions({path: (trace(function, inputs), inputs, [[0]])})
        (found,) = load_function(path)(*inputs)
        if not torch.allclose(found, inputs[0].sin() + 1):
            raise RuntimeError("a compiled function gives wrong numbers")
    return "compiles, loads and agrees"
