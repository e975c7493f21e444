"""Every verb of the command line with malformed files and absurd arguments."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from phicalc.cli import main
from tools.fuzz.inputs import INPUTS, Input, write_input
from tools.fuzz.models import TINY_BACKBONE, scratch, tiny_model
from tools.fuzz.verdicts import Case, Refusal, Unforgivable, Unsound

COUNT = 700


class Verb(NamedTuple):
    """A verb and what is tried with it."""

    arguments: Callable[[Path], list[str]]
    """A command that is right for a good file."""
    odd: tuple[str, ...] = ()
    """Arguments, with blanks between flag and value, of which one is added at times."""
    weight: int = 1
    reads: bool = True
    """Whether the file is a structure that the verb must read."""


def _model() -> list[str]:
    return ["--model", str(tiny_model("qeq")), "--compile", "no", "--device", "cpu"]


_COMMON = ("--model nowhere", "--model .", "--model ''", "--device tpu", "--device cuda:7",
           "--dtype float16", "--charge nan", "--charge 1e9", "--charge x", "--index 99",
           "--index ::0", "--index x", "--index -5:", "--threads 0", "--threads -1",
           "--threads 100000", "--compile maybe", "--nonsense")  # fmt: skip
_POOR = ("--scheduler nonsense", "--scheduler tcp://127.0.0.1:1", "--workers 0", "--workers -2")


def _train(path: Path) -> list[str]:
    config = path.parent / "train.yaml"
    settings = {
        "data": {"train": [str(path)], "valid_count": 1},
        "model": {"elements": ["H", "O"], "cutoff": 3.0, "backbone": TINY_BACKBONE},
        "max_epochs": 1, "device": "cpu", "compile": False, "output": "run",
    }  # fmt: skip
    config.write_text(yaml.safe_dump(settings))
    return ["train", str(config)]


VERBS: dict[str, Verb] = {
    "predict": Verb(
        lambda p: ["predict", str(p), *_model()],
        (*_COMMON, "--output out.json", "--output out.extxyz", "--output out@1.xyz",
         "--output /proc/no/way.xyz", "--output .", "--no-stress", "--output out.cif",
         *_POOR[:1]),
        weight=6,
    ),
    "relax": Verb(
        lambda p: ["relax", str(p), *_model(), "--steps", "2"],
        (*_COMMON, "--fmax 0", "--fmax nan", "--fmax -1", "--steps -1", "--cell", "--symmetry",
         "--cell --pressure nan", "--pressure 5", "--trajectory t.xyz", "--output /proc/x.xyz",
         "--smax nan --cell", "--optimizer newton", "--trajectory ."),
        weight=3,
    ),
    "eos": Verb(
        lambda p: ["eos", str(p), *_model(), "--points", "5"],
        (*_COMMON, "--strain 0", "--strain 5", "--strain nan", "--points 0", "--points 2",
         "--output /proc/x.json", "--strain -0.1"),
    ),
    "elastic": Verb(
        lambda p: ["elastic", str(p), *_model(), "--clamped"],
        (*_COMMON, "--strain 0", "--strain nan", "--strain 3", "--fmax 0", "--fmax nan"),
    ),
    "phonons": Verb(
        lambda p: ["phonons", str(p), *_model(), "--supercell", "1", "1", "1", "--mesh", "2"],
        (*_COMMON, "--supercell 0 1 1", "--supercell -1 1 1", "--mesh 0", "--mesh -3",
         "--delta 0", "--delta nan", "--supercell 1 1"),
    ),
    "vibrations": Verb(
        lambda p: ["vibrations", str(p), *_model()],
        (*_COMMON, "--delta 0", "--delta nan", "--delta -1", "--delta 50"),
    ),
    "md": Verb(
        lambda p: ["md", str(p), *_model(), "--steps", "3", "--output", "run", "--quiet"],
        (*_COMMON, "--temperature nan", "--temperature -1", "--temperature 1e12", "--timestep 0",
         "--timestep 1e6", "--timestep nan", "--steps -1", "--ensemble npt", "--ensemble nvx",
         "--thermostat bussi", "--thermostat none", "--pressure nan", "--restart",
         "--config nothing.yaml", "--replicas 0", "--replicas -3", "--max-force 0", "--seed -1",
         "--seed 99999999999999999999999", "--output /proc/x", "--log-interval 0",
         "--temperature-end nan", "--trajectory-format xtc", "--trajectory-format traj",
         "--axes q", "--cell-motion full", *_POOR[:1]),
        weight=4,
    ),
    "analyse": Verb(
        lambda p: ["analyse", str(p.parent)],
        ("--discard 2", "--discard nan", "--discard -1", "--stride 0", "--stride -2"), reads=False,
    ),
    "serve": Verb(
        lambda p: ["serve", str(p), *_model(), "--wait", "0.1", "--host", "127.0.0.1"],
        (*_COMMON, "--port 99999", "--port -1", "--port 0", "--port x", "--port 65536",
         "--host no.such.host.invalid", "--wait nan", "--wait -1", "--unixsocket /proc/no",
         f"--unixsocket {'x' * 200}", "--unixsocket ''", "--unixsocket a --port 5"),
        weight=2,
    ),
    "label": Verb(
        lambda p: ["label", str(p), "--calculator", "ase.calculators.lj:LennardJones",
                   "--output", "labels.extxyz"],
        ("--calculator nothing", "--calculator os:path", "--calculator a:b:c", "--arguments {",
         "--arguments []", '--arguments {"nonsense":1}', "--charge nan", "--workers 0",
         "--max-force nan", "--max-force -1", "--sample md --frames 0",
         "--sample rattle --copies 0",
         "--sample md --frames 1 --interval 1", "--sample md --temperatures nan --frames 1",
         "--sample rattle --copies 2 --displacement nan", "--sample rattle --strain 40 --copies 1",
         "--output .", "--seed -1", "--charge-argument x", "--dipole-origin moon"),
        weight=2,
    ),
    "data": Verb(lambda p: ["data", str(p)], ("--output report", "--energy-key x", "--nonsense"),
                 weight=3),
    "train": Verb(
        _train,
        ("max_epochs=0", "max_epochs=x", "nonsense=1", "model.layers=1.5", "=", "model=5",
         "data.split=files", "batch_size=-1", "--members 1", "--members 0", "--finetune nowhere",
         "optimizer.lr=nan", "output=/proc/x", "device=tpu", "data.keys.energy=5",
         "loss.energy.weight=nan", "a.b.c.d=1", "data.train=[]"),
        weight=2,
    ),
    "evaluate": Verb(
        lambda p: ["evaluate", str(tiny_model("qeq")), str(p), "--device", "cpu"],
        ("--output .", "--output /proc/x", "--device tpu", "--nonsense"), weight=3,
    ),
    "info": Verb(lambda p: ["info", str(p)], ("--nonsense",)),
    "models": Verb(lambda p: ["models"], ("--nonsense", "--threads 0"), reads=False),
    "doctor": Verb(lambda p: ["doctor", "--no-compile"], ("--device tpu", "--device cuda:9"),
                   reads=False),
    "": Verb(lambda p: [], ("--version", "--help", "nonsense", "predict", "md", "--debug"),
             reads=False),
}  # fmt: skip
_DRAWN = tuple(name for name, verb in VERBS.items() for _ in range(verb.weight))


def make_case(seed: int) -> Case:
    """Make the case of a seed."""
    rng = np.random.default_rng([3, seed])
    word = tuple(INPUTS)[seed % len(INPUTS)]
    made = INPUTS[word](rng)
    name = _DRAWN[rng.integers(len(_DRAWN))]
    verb = VERBS[name]
    odd: list[str] = []
    always = name == "" or name == "doctor"
    if verb.odd and (always or rng.random() < (0.8 if word.startswith("good") else 0.15)):
        odd = [part.strip("'") for part in verb.odd[rng.integers(len(verb.odd))].split(" ")]
    text = f"{name} ({word}{': ' + ' '.join(odd) if odd else ''})"
    # `label` and `data` compute nothing from such structures; what they do is their own affair.
    strict = made.must_refuse and verb.reads and not odd and name not in ("label", "data")
    kind = word if not odd else f"{name} {' '.join(odd)[:30]}"
    return Case(kind, text, lambda: _run(verb, made, odd), must_refuse=strict)


def _run(verb: Verb, made: Input, odd: list[str]) -> None:
    """Run a command in a folder of its own, in this process."""
    folder = scratch() / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    before = Path.cwd()
    os.chdir(folder)
    out, err = StringIO(), StringIO()
    try:
        arguments = [*verb.arguments(write_input(folder, made)), *odd]
        with redirect_stdout(out), redirect_stderr(err):
            code = _call(arguments)
    finally:
        os.chdir(before)
    _judge(code, out.getvalue(), err.getvalue())


def _call(arguments: list[str]) -> int:
    """Return the exit code of a command; argparse leaves by `SystemExit`."""
    streams = sys.stdin
    try:
        return main(arguments)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    finally:
        sys.stdin = streams


def _judge(code: int, out: str, err: str) -> None:
    """Raise unless the command ended as it should."""
    if "Traceback (most recent call last)" in err + out:
        raise Unforgivable(f"a traceback is printed: {err.strip().splitlines()[-1][:80]}")
    if code == 0:
        said = "warning" in err.lower() or "warning" in out.lower()
        if re.search(r"(?<![\w.])(nan|inf)(?![\w.])", out) and not said:
            raise Unsound(f"prints numbers that are not finite: {out[:200]}")
        return
    lines = [line for line in err.splitlines() if line.strip()]
    if not lines and out.strip():
        return  # `data` prints what it finds and gives 1
    if not lines:
        raise Unforgivable(f"exit code {code} without a word")
    message = lines[-1]
    is_usage = " error: " in message and lines[0].startswith("usage:")
    if not is_usage and not message.startswith("phicalc"):
        raise Unforgivable(f"the last line is not an error of phicalc: {message[:80]}")
    raise Refusal(message)
