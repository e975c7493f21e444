"""Models on disk: what is written comes back bit by bit, and nothing doubtful is ever loaded."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase.build import molecule
from safetensors.torch import load_file, save_file

from phicalc import checkpoint
from phicalc.checkpoint import (
    CARD_FILE,
    PENDING_WEIGHTS_FILE,
    WEIGHTS_FILE,
    ModelCard,
    UpgradeStep,
    available_models,
    find_model,
    load_model,
    read_card,
    resolve_device,
    resolve_dtype,
    save_model,
    weights_digest,
)
from phicalc.derivatives import predict
from phicalc.electrostatics import ChargeEquilibration
from phicalc.graph import from_ase
from phicalc.potential import Potential, PotentialConfig, build_potential

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def tiny(head: str = "qeq", seed: int = 0, dtype: str = "float32") -> Potential:
    config = PotentialConfig(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, head=head
    )
    return build_potential(config, seed=seed).to(DTYPES[dtype])


def energy(potential: Potential) -> float:
    graph = potential.prepare(from_ase(molecule("H2O"), potential.cutoff))
    return float(predict(potential, graph).energy.sum())


def edit_card(folder: Path, **changes: object) -> None:
    path = folder / CARD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Put other tensors in place, with a card that vouches for them."""
    save_file(tensors, folder / WEIGHTS_FILE)
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    edit_card(folder, sha256=digest)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "tiny", tiny(), ModelCard(name="tiny"))
    return tmp_path / "tiny"


def test_trained_widths_and_the_like_come_back(tmp_path: Path):
    config = replace(
        tiny().config, smearing="trained", hardness="environment", atomic_dipoles=True,
        gate=False, readout="last",
    )  # fmt: skip
    saved = build_potential(config)
    with torch.no_grad():
        saved.head.widths.raw.copy_(torch.tensor([0.4, -0.7]))
    save_model(tmp_path, saved, ModelCard(name="wide"))
    loaded, _ = load_model(tmp_path)
    assert loaded.config == config
    graph = from_ase(molecule("H2O"), 3.0)
    assert torch.equal(loaded.smearing(graph), saved.eval().smearing(graph))
    assert energy(loaded) == energy(saved)


@pytest.mark.parametrize("head", ["none", "qeq", "latent"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_is_exact(tmp_path: Path, head: str, dtype: str):
    saved = tiny(head, dtype=dtype)
    card = save_model(tmp_path, saved, ModelCard(name="tiny"))
    loaded, loaded_card = load_model(tmp_path)
    assert loaded_card == card
    assert card.dtype == dtype
    assert loaded.config == saved.config
    assert not loaded.training
    for name, tensor in saved.state_dict().items():
        assert loaded.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert energy(loaded) == energy(saved)


def test_card_survives_the_round_trip(folder: Path):
    card = ModelCard(
        name="other",
        description="for tests",
        level_of_theory="none",
        license="MIT",
        charge_range=(-1.0, 1.0),
        limits=("H and O only",),
        data={"frames": 3},
        metrics={"forces_rmse_eV_per_A": 0.5},
        training={"seed": 1},
    )
    written = save_model(folder, tiny(), card)
    assert read_card(folder) == written
    filled = ("potential", "dtype", "sha256")
    assert replace(written, potential={}, dtype="", sha256="") == card
    assert all(getattr(written, name) for name in filled)
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert written.sha256 == digest == weights_digest(tiny())


def test_precision_can_be_changed_at_load(folder: Path):
    as_saved, _ = load_model(folder)
    wider, _ = load_model(folder, dtype="float64")
    assert {p.dtype for p in as_saved.parameters()} == {torch.float32}
    assert {p.dtype for p in wider.parameters()} == {torch.float64}
    assert energy(wider) == pytest.approx(energy(as_saved), abs=1e-4)
    assert energy(wider) != energy(as_saved)
    assert load_model(folder, dtype=torch.float64)[1] == load_model(folder)[1]


def test_loading_leaves_the_random_numbers_alone(folder: Path):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load_model(folder)
    assert torch.equal(torch.rand(3), expected)


def test_loading_does_not_depend_on_the_default_dtype(folder: Path):
    expected = energy(load_model(folder)[0])
    torch.set_default_dtype(torch.float64)
    try:
        potential, _ = load_model(folder)
        assert {p.dtype for p in potential.parameters()} == {torch.float32}
        assert energy(potential) == expected
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("member", [".", CARD_FILE, WEIGHTS_FILE])
def test_a_model_is_named_by_its_folder_or_a_file_in_it(folder: Path, member: str):
    assert load_model(folder / member)[1].name == "tiny"
    assert load_model(str(folder / member))[1].name == "tiny"


# --- registry ------------------------------------------------------------------------------------


def test_models_of_the_users_folders_are_found_by_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = tmp_path / "more"
    shutil.copytree(folder, other / "copy")
    shutil.copytree(folder, other / "tiny")
    monkeypatch.setenv("PHICALC_MODELS", os.pathsep.join([str(tmp_path), "", str(other)]))
    models = available_models()
    assert models["tiny"] == folder  # the first folder in the list wins
    assert models["copy"] == other / "copy"
    assert load_model("copy")[1].name == "tiny"


def test_a_registered_name_goes_before_a_folder_of_that_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PHICALC_MODELS", str(tmp_path))
    here = tmp_path / "elsewhere"
    shutil.copytree(folder, here / "tiny")
    monkeypatch.chdir(here)
    assert find_model("tiny") == folder
    assert find_model("./tiny").resolve() == here / "tiny"


def test_unknown_name_lists_the_models_there_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PHICALC_MODELS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no model 'watr'.*models:.*tiny.*PHICALC_MODELS"):
        load_model("watr")


# --- doubtful files ------------------------------------------------------------------------------


def test_folder_without_a_card(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"has no card\.json"):
        load_model(tmp_path)


def test_folder_without_weights(folder: Path):
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights\.safetensors"):
        load_model(folder)


def test_truncated_weights(folder: Path):
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:-10])
    with pytest.raises(ValueError, match="incomplete or was changed"):
        load_model(folder)
    digest = hashlib.sha256(content[:-10]).hexdigest()
    edit_card(folder, sha256=digest)  # a card made for the truncated file does not help
    with pytest.raises(ValueError, match="no valid safetensors"):
        load_model(folder)


def test_changed_weights(folder: Path):
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="does not match its card"):
        load_model(folder)


def test_wrong_shape_names_the_tensor(folder: Path):
    tensors = load_file(folder / WEIGHTS_FILE)
    name = max(tensors, key=lambda key: tensors[key].numel())
    tensors[name] = tensors[name][:-1].clone()
    replace_weights(folder, tensors)
    with pytest.raises(ValueError, match="1 tensors differ") as error:
        load_model(folder)
    assert name in str(error.value)


def test_missing_and_superfluous_tensors(folder: Path):
    tensors = load_file(folder / WEIGHTS_FILE)
    tensors["nobody"] = tensors.pop(min(tensors))
    replace_weights(folder, tensors)
    with pytest.raises(ValueError, match="2 tensors differ"):
        load_model(folder)


@pytest.mark.parametrize("text", ['{"name": "ti', "[]", "{}"])
def test_broken_card(folder: Path, text: str):
    (folder / CARD_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"card\.json"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "blue"}, "unknown key 'colour'"),
        ({"metrics": [1]}, "'metrics' must be a section of keys, got"),
        ({"charge_range": [1]}, "'charge_range' must be a list of 2 values"),
        ({"charge_range": [1, 0]}, "'charge_range' must be in ascending order"),
        ({"limits": "none"}, "'limits' must be a list, got 'none'"),
        ({"dtype": "float16"}, "float32"),
        ({"format_version": 0}, "whole number from 1"),
        ({"format_version": "1"}, "whole number from 1"),
        ({"name": ""}, "'name' must not be empty"),
    ],
)
def test_card_entries_are_checked(folder: Path, change: dict[str, object], message: str):
    edit_card(folder, **change)
    with pytest.raises(ValueError, match=message) as error:
        load_model(folder)
    assert CARD_FILE in str(error.value)


def test_unknown_key_in_the_potential(folder: Path):
    config = json.loads((folder / CARD_FILE).read_text())["potential"]
    edit_card(folder, potential=config | {"colour": "blue"})
    with pytest.raises(ValueError, match=r"card\.json.*colour"):
        load_model(folder)


def test_unknown_precision_and_device(folder: Path):
    with pytest.raises(ValueError, match="'float32' or 'float64', got 'float16'"):
        load_model(folder, dtype="float16")
    with pytest.raises(ValueError, match="'auto', 'cpu', 'cuda'"):
        load_model(folder, device="abacus")
    with pytest.raises(ValueError, match="is not there"):
        load_model(folder, device="cuda:99")


def test_resolving_devices_and_precisions():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_dtype("float64") is resolve_dtype(torch.float64) is torch.float64


# --- versions ------------------------------------------------------------------------------------


def test_newer_format_is_refused_with_advice(folder: Path):
    edit_card(folder, format_version=checkpoint.FORMAT_VERSION + 1, phicalc_version="9.9")
    for read in (load_model, read_card):
        with pytest.raises(ValueError, match=r"phicalc 9\.9.*Install a newer phicalc"):
            read(folder)


def test_old_format_is_upgraded_step_by_step(folder: Path, monkeypatch: pytest.MonkeyPatch):
    now = checkpoint.FORMAT_VERSION
    tensors = load_file(folder / WEIGHTS_FILE)
    replace_weights(folder, {f"old.{name}": tensor for name, tensor in tensors.items()})
    path = folder / CARD_FILE
    card = json.loads(path.read_text())
    card["licence"] = card.pop("license") + "MIT"  # as an older phicalc might have spelt it
    path.write_text(json.dumps(card))
    steps = {
        now: UpgradeStep(
            card=lambda card: {**card, "license": card["licence"]},
            weights=lambda weights: {k.removeprefix("old."): v for k, v in weights.items()},
        ),
        now + 1: UpgradeStep(
            card=lambda card: {k: v for k, v in card.items() if k != "licence"},
            weights=lambda weights: weights,
        ),
    }
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", now + 2)
    monkeypatch.setattr(checkpoint, "UPGRADES", steps)
    potential, upgraded = load_model(folder)
    assert upgraded.license == "MIT"
    assert upgraded.format_version == now + 2
    assert energy(potential) == energy(tiny())
    assert json.loads(path.read_text())["format_version"] == now  # reading changes no file


def as_format_1(folder: Path) -> None:
    """Rewrite a model as phicalc wrote it before there were several electrostatic heads."""
    card = json.loads((folder / CARD_FILE).read_text())
    later = (
        "force_accuracy", "latent_smearing", "smearing", "hardness", "gate", "readout",
        "atomic_dipoles",
    )  # fmt: skip
    config = {key: value for key, value in card["potential"].items() if key not in later}
    edit_card(folder, format_version=1, potential=config | {"coulomb_tolerance": 1e-5})
    tensors = load_file(folder / WEIGHTS_FILE)
    old = {
        f"charge_equilibration.{name.removeprefix('head.')}"
        if name.startswith("head.")
        else name: t
        for name, t in tensors.items()
    }
    assert (old.keys() == tensors.keys()) == (config["head"] == "none")
    replace_weights(folder, old)


@pytest.mark.parametrize("head", ["none", "qeq"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_format_1_gives_the_same_energies(tmp_path: Path, head: str, dtype: str):
    saved = tiny(head, seed=4, dtype=dtype)
    save_model(tmp_path, saved, ModelCard(name="old"))
    as_format_1(tmp_path)
    loaded, card = load_model(tmp_path)
    assert card == read_card(tmp_path)
    assert card.format_version == checkpoint.FORMAT_VERSION
    assert loaded.config == saved.config
    assert "coulomb_tolerance" not in card.potential
    assert card.potential["force_accuracy"] == 1e-4
    assert energy(loaded) == energy(saved)
    assert weights_digest(loaded) == weights_digest(saved)
    save_model(tmp_path, loaded, card)  # from now on in the present format
    assert json.loads((tmp_path / CARD_FILE).read_text())["format_version"] == card.format_version
    assert energy(load_model(tmp_path)[0]) == energy(saved)


def test_weights_of_format_1_in_a_card_of_today_are_refused(folder: Path):
    as_format_1(folder)
    config = json.loads((folder / CARD_FILE).read_text())["potential"]
    del config["coulomb_tolerance"]
    edit_card(folder, format_version=checkpoint.FORMAT_VERSION, potential=config)
    with pytest.raises(ValueError, match=r"tensors differ, first charge_equilibration\."):
        load_model(folder)


def test_shipped_model_of_format_1_is_read():
    path = find_model("water")
    raw = json.loads((path / CARD_FILE).read_text())
    potential, card = load_model("water")
    assert card.format_version == checkpoint.FORMAT_VERSION >= raw["format_version"]
    assert isinstance(potential.head, ChargeEquilibration)
    assert card.sha256 == raw["sha256"]
    graph = potential.prepare(from_ase(molecule("H2O"), potential.cutoff))
    oxygen, first, second = predict(potential, graph).charges.tolist()
    assert oxygen < 0 < first == pytest.approx(second, abs=1e-4)


# --- interrupted saves ---------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Let the process die before its n-th rename (from 1)."""
    rename, count = Path.replace, 0

    def dying_replace(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == n:
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", dying_replace)


@pytest.mark.parametrize(("renames", "survivor"), [(1, "old"), (2, "old"), (3, "new")])
def test_a_killed_save_leaves_the_old_model_or_the_new_one(
    tmp_path: Path, renames: int, survivor: str, monkeypatch: pytest.MonkeyPatch
):
    old, new = tiny(seed=1), tiny(seed=2)
    save_model(tmp_path, old, ModelCard(name="old"))
    with monkeypatch.context() as patch:
        kill_at(patch, renames)
        with pytest.raises(Killed):
            save_model(tmp_path, new, ModelCard(name="new"))
    potential, card = load_model(tmp_path)
    assert card.name == survivor
    assert energy(potential) == energy({"old": old, "new": new}[survivor])

    # a second save dies too, at its first chance: what there was is still there
    with monkeypatch.context() as patch:
        kill_at(patch, 3 if survivor == "new" else 2)
        with pytest.raises(Killed):
            save_model(tmp_path, tiny(seed=3), ModelCard(name="third"))
    assert load_model(tmp_path)[1].name == survivor

    save_model(tmp_path, tiny(seed=4), ModelCard(name="last"))
    assert energy(load_model(tmp_path)[0]) == energy(tiny(seed=4))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CARD_FILE, WEIGHTS_FILE]


def test_a_full_disk_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save_model(folder, tiny(seed=1), ModelCard(name="new"))
    assert load_model(folder)[1].name == "tiny"
    assert sorted(path.name for path in folder.iterdir()) == [CARD_FILE, WEIGHTS_FILE]


# --- what is not saved ---------------------------------------------------------------------------


def test_weights_that_are_not_finite_are_not_saved(folder: Path):
    broken = tiny()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        save_model(folder, broken, ModelCard(name="broken"))
    assert load_model(folder)[1].name == "tiny"


@pytest.mark.parametrize("value", [float("nan"), Path("data.xyz")])
def test_cards_that_json_cannot_hold_are_not_saved(folder: Path, value: object):
    with pytest.raises(ValueError, match="does not fit into JSON"):
        save_model(folder, tiny(), ModelCard(name="broken", metrics={"rmse": value}))
    assert load_model(folder)[1].name == "tiny"


def test_mixed_precision_is_not_saved(tmp_path: Path):
    mixed = tiny()
    first = next(mixed.parameters())
    first.data = first.data.double()
    with pytest.raises(ValueError, match="all be float32 or all float64"):
        save_model(tmp_path / "mixed", mixed, ModelCard(name="mixed"))
    assert not (tmp_path / "mixed").exists()


def test_nothing_is_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("pickle.Unpickler", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load_model(folder)


def test_leftover_of_a_save_that_never_counted_is_ignored(folder: Path):
    (folder / PENDING_WEIGHTS_FILE).write_bytes(b"half")
    assert energy(load_model(folder)[0]) == energy(tiny())
