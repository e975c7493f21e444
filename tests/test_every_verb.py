"""Every way to evaluate a model asks whether it covers a structure, and refuses absurd results."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.socketio import SocketIOCalculator, actualunixsocketname

from phicalc import PhiCalculator
from phicalc.checkpoint import ModelCard, save_model
from phicalc.cli import main
from phicalc.cli.parser import VERBS, make_parser
from phicalc.inference.concerns import DomainError, DomainWarning, ImplausibleResultError
from phicalc.integrations.lammps import attach
from phicalc.potential import build_potential
from phicalc.suggest import suggestion

from .tiny import flat_config

KNOWN = {"environments": ["O(HH)", "H(O)"], "closed_shell": True, "elements": ["H", "O"]}
TYPES = ["Na", "Cl"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a model of water that also takes salt, and of one with absurd results."""
    folders = {}
    for name, scale in (("made", 1.0), ("absurd", 1e12)):
        config = flat_config(
            elements=("H", "O", "Na", "Cl"), cutoff=4.5, channels=4, l_max=1, layers=1,
            correlation=1, head="latent",
        )  # fmt: skip
        potential = build_potential(config, seed=1)
        potential.linear_readout.weight.data.mul_(scale)
        card = ModelCard(name="made", charge_range=(0, 0), data={"domain": KNOWN})
        folders[name] = str(tmp_path_factory.mktemp("models") / name)
        save_model(folders[name], potential, card)
    return folders


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Salt, whose atoms are bonded as none in the domain, as a crystal and as a molecule."""
    monkeypatch.chdir(tmp_path)
    salt = bulk("NaCl", "rocksalt", a=5.2)
    salt.positions[1] += 0.1
    ase.io.write("crystal.xyz", salt)
    ase.io.write(
        "molecule.xyz", Atoms("Na2Cl2", [[0, 0, 0], [2.5, 0, 0], [1.2, 2.1, 0], [1.2, -2.1, 0]])
    )
    return {"crystal": "crystal.xyz", "molecule": "molecule.xyz"}


#: Input and further arguments of every verb that takes structures and a model.
ASKING: dict[str, tuple[str, tuple[str, ...]]] = {
    "predict": ("crystal", ()),
    "relax": ("crystal", ("--cell", "--steps", "1")),
    "md": ("crystal", ("--steps", "1", "--no-report")),
    "eos": ("crystal", ()),
    "elastic": ("crystal", ()),
    "phonons": ("crystal", ("--supercell", "1", "1", "1")),
    "vibrations": ("molecule", ()),
    "label": ("crystal", ("--sample", "rattle", "--copies", "3", "--max-force", "1e9")),
}


def test_every_verb_with_a_model_is_asked() -> None:
    """`serve` is below; `evaluate`, `train` and `info` evaluate no structure of a user's own."""
    choosing = set()
    for name in VERBS:
        parser = make_parser()._subparsers._group_actions[0].choices[name]
        parser.complete()
        options = {option for action in parser._actions for option in action.option_strings}
        if "--model" in options:
            choosing.add(name)
            assert "--strict" in options, name
    assert choosing == {*ASKING, "serve"}


@pytest.mark.parametrize("verb", ASKING)
def test_strict_verbs_refuse(verb: str, models, files, capsys) -> None:
    name, more = ASKING[verb]
    assert main([verb, files[name], "--model", models["made"], "--strict", *more]) == 2
    error = capsys.readouterr().err
    assert "is bonded to" in error
    assert "strict=True" in error


@pytest.mark.parametrize("verb", ASKING)
def test_verbs_refuse_absurd_results(verb: str, models, files, capsys) -> None:
    name, more = ASKING[verb]
    assert main([verb, files[name], "--model", models["absurd"], *more]) == 2
    assert "no result is given" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["predict", "relax", "md"])
def test_verbs_warn_once(verb: str, models, files) -> None:
    name, more = ASKING[verb]
    with pytest.warns(DomainWarning) as said:
        assert main([verb, files[name], "--model", models["made"], *more]) == 0
    texts = [str(each.message) for each in said]
    assert len([text for text in texts if "is bonded to" in text]) == 1
    assert all("\n" not in text for text in texts)


def test_labels_warn_once_for_all_frames(models, files, capsys) -> None:
    name, more = ASKING["label"]
    command = ["label", files[name], "--model", models["made"], *more]
    for _ in range(2):  # the second time from what is there
        assert main(command) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "is bonded to" in line]
        assert len(lines) == 1
        assert lines[0].startswith("phicalc: warning: atom 0 (Na) is bonded to")
        assert lines[0].endswith("(3 frames)")


def test_labels_by_a_model_fail_where_it_is_strict(models, files, capsys) -> None:
    ase.io.write("both.xyz", [molecule("H2O"), ase.io.read(files["molecule"])])
    command = ["label", "both.xyz", "--model", models["made"], "--strict", "--max-force", "1e9"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "failed: structure 1, frame 0, frames_lost_after 0: DomainError" in printed
    assert "1 frames labelled, 1 failed" in printed
    assert main(["label", "both.xyz", "--strict", "--overwrite"]) == 2
    assert "--strict needs --model" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["made", "absurd"])
def test_i_pi_clients_refuse(kind: str, models, files, capsys) -> None:
    name = f"phicalc-{uuid4().hex}"
    salt = ase.io.read(files["crystal"])
    command = ["serve", files["crystal"], "--model", models[kind], "--unixsocket", name]
    command += ["--strict"] * (kind == "made")
    try:
        with ThreadPoolExecutor() as pool, SocketIOCalculator(unixsocket=name) as server:
            client = pool.submit(main, command)
            salt.calc = server
            with pytest.raises(Exception, match=r"."):  # the connection ends
                salt.get_potential_energy()
            assert client.result(60) == 2
    finally:
        Path(actualunixsocketname(name)).unlink(missing_ok=True)
    text = {"made": "strict=True", "absurd": "no result is given"}[kind]
    assert text in capsys.readouterr().err


class Engine:
    """As much of LAMMPS as gives a structure and takes forces."""

    def __init__(self, atoms: Atoms):
        self.atoms, self.stopped = atoms, False
        self.numpy = SimpleNamespace(extract_atom=lambda _: np.arange(len(atoms)) + 1)

    def extract_global(self, _: str) -> str:
        return "metal"

    def extract_setting(self, name: str) -> int:
        return {"world_size": 1, "ntypes": len(self.atoms)}[name]

    def extract_box(self) -> tuple[Any, ...]:
        (xx, *_), (xy, yy, _), (xz, yz, zz) = self.atoms.cell.standard_form()[0].array
        return [0, 0, 0], [xx, yy, zz], xy, yz, xz, [1, 1, 1], 0

    def command(self, _: str) -> None: ...

    def set_fix_external_callback(self, _: str, fill: Any) -> None:
        self.fill = fill

    def fix_external_set_virial_global(self, *_: Any) -> None: ...

    def fix_external_set_energy_global(self, *_: Any) -> None: ...

    def force_timeout(self) -> None:
        self.stopped = True

    def step(self) -> None:
        tags = np.arange(len(self.atoms)) + 1
        self.fill(None, 0, len(tags), tags, self.atoms.positions, self.atoms.positions.copy())


@pytest.mark.parametrize("kind", ["made", "absurd"])
def test_lammps_is_stopped(kind: str, models) -> None:
    engine = Engine(Atoms("NaCl", [[0, 0, 0], [2.6, 0, 0]], cell=[5.2, 5.2, 5.2], pbc=True))
    calculator = PhiCalculator(models[kind], device="cpu", strict=kind == "made")
    expected = {"made": DomainError, "absurd": ImplausibleResultError}[kind]
    with pytest.raises(expected), attach(engine, calculator, TYPES):
        engine.step()
    assert engine.stopped
    calculator = PhiCalculator(models["made"], device="cpu")
    with pytest.warns(DomainWarning, match="is bonded to"), attach(engine, calculator, TYPES):
        engine.step()


def test_absurd_results_say_why_the_structure_is_outside(models, files) -> None:
    salt = ase.io.read(files["crystal"])
    with pytest.raises(ImplausibleResultError, match=r"no result is given\. .*is bonded to"):
        PhiCalculator(models["absurd"], device="cpu").get_potential_energy(salt)


def test_unknown_elements_name_the_nearest_models() -> None:
    assert suggestion(["H", "O"]).startswith("Models with all elements of this structure: ")
    text = suggestion(["H", "C", "O", "Br"])
    assert text.startswith("No shipped or registered model knows all elements of this structure")
    assert text.endswith("organics (without Br)")
    assert "water" not in text
    assert suggestion(["Au"]).endswith("train one")
