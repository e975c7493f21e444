"""Models on disk: what is written comes back bit by bit, and nothing doubtful is ever loaded."""

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
)
from phicalc.derivatives import predict
from phicalc.graph import from_ase
from phicalc.potential import Potential, build_potential
from phicalc.registry import models_for_work

from .tiny import flat_config

FORMATS = Path(__file__).parent / "data" / "formats"
TINY = {"elements": ("H", "O"), "cutoff": 3.0, "layers": 1, "channels": 4, "l_max": 1}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def tiny(head: str = "qeq", seed: int = 0, dtype: str = "float32") -> Potential:
    return build_potential(flat_config(**TINY, head=head), seed=seed).to(DTYPES[dtype])


def energy(potential: Potential) -> float:
    graph = potential.prepare(from_ase(molecule("H2O"), potential.cutoff))
    return float(predict(potential, graph).energy.sum())


def edit_card(folder: Path, **changes: object) -> None:
    path = folder / CARD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Put other tensors in place, with a card that vouches for them."""
    save_file(tensors, folder / WEIGHTS_FILE)
    vouch(folder)


def vouch(folder: Path) -> None:
    """Give a card the digest of the files as they are."""
    card = json.loads((folder / CARD_FILE).read_text())
    weights = (folder / WEIGHTS_FILE).read_bytes()
    edit_card(folder, sha256=checkpoint._digest_found(weights, card))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "tiny", tiny(), ModelCard(name="tiny"))
    return tmp_path / "tiny"


def test_trained_widths_and_the_like_come_back(tmp_path: Path):
    config = flat_config(
        **TINY, smearing="trained", hardness="environment", atomic_dipoles=True,
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
    assert written.sha256 == checkpoint._digest_found(
        (folder / WEIGHTS_FILE).read_bytes(), written.to_dict()
    )


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


def test_models_that_compare_methods_are_found_and_not_listed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A folder of the user's own that happens to have that name is like any other."""
    own = tmp_path / "benchmarks"
    shutil.copytree(folder, own / "mine")
    shutil.copytree(folder, own / "benchmarks" / "compared")
    shutil.copytree(folder, own / "ag3")
    monkeypatch.setenv("PHICALC_MODELS", str(own))
    assert available_models().keys() >= {"mine", "compared", "ag3"}
    assert "mine" in models_for_work()
    assert models_for_work().keys().isdisjoint({"compared", "ag3"})  # ag3 is the shipped one
    assert load_model("compared")[1].name == "tiny"


def test_shipped_models_are_found_beside_a_clone_that_shadows_what_is_installed(monkeypatch):
    installed, clone = available_models(), Path(__file__).parents[1]
    monkeypatch.setattr("phicalc.registry.find_spec", lambda name: None)
    monkeypatch.setattr("phicalc.registry.__file__", str(clone / "phicalc" / "registry.py"))
    assert available_models().keys() == installed.keys()


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
    with pytest.raises(ValueError, match="incomplete or were changed"):
        load_model(folder)
    vouch(folder)  # a card made for the truncated file does not help
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
        ({"format_version": "1"}, "'format_version' must be of type int"),
        ({"name": ""}, "'name' must not be empty"),
    ],
)
def test_card_entries_are_checked(folder: Path, change: dict[str, object], message: str):
    edit_card(folder, **change)
    if set(change) & set(checkpoint.DIGESTED):
        vouch(folder)
    with pytest.raises(ValueError, match=message) as error:
        load_model(folder)
    assert CARD_FILE in str(error.value)


def test_unknown_key_in_the_potential(folder: Path):
    config = json.loads((folder / CARD_FILE).read_text())["potential"]
    edit_card(folder, potential=config | {"colour": "blue"})
    vouch(folder)
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


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["qeq", "network", "latent"])
def test_older_formats_give_the_same_energies(version: int, kind: str, tmp_path: Path):
    """The models in ``data/formats`` were written by phicalc when these formats were current."""
    old = FORMATS / f"{kind}_{version}"
    raw = json.loads((old / CARD_FILE).read_text())
    loaded, card = load_model(old)
    assert card == read_card(old)
    assert card.format_version == checkpoint.FORMAT_VERSION > raw["format_version"] == version
    assert energy(loaded) == pytest.approx(raw["metrics"]["energy_of_H2O"], rel=1e-12)
    assert isinstance(card.potential["head"], dict)
    save_model(tmp_path, loaded, card)  # from now on in the current format
    assert json.loads((tmp_path / CARD_FILE).read_text())["format_version"] == card.format_version
    assert energy(load_model(tmp_path)[0]) == energy(loaded)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("energy_scale", 1.1),
        ("average_neighbors", 31.5),
        ("reference_energies", [1.0, 0.0]),
        ("cutoff", 3.1),
        ("head", {"name": "qeq", "energy": "coulomb"}),
    ],
)
def test_card_entries_that_enter_the_energy_are_part_of_the_digest(
    folder: Path, entry: str, value: object
):
    potential = json.loads((folder / CARD_FILE).read_text())["potential"]
    edit_card(folder, potential=potential | {entry: value})
    with pytest.raises(ValueError, match="does not match its card"):
        load_model(folder)


@pytest.mark.parametrize(
    "change", [{"charge_range": [-9.0, 9.0]}, {"data": {"domain": {"periodic": True}}}]
)
def test_card_entries_that_enter_checks_are_part_of_the_digest(folder: Path, change: dict):
    edit_card(folder, **change)
    with pytest.raises(ValueError, match="does not match its card"):
        load_model(folder)


def test_other_entries_of_the_card_may_be_edited(folder: Path):
    edit_card(folder, description="corrected a typing error")
    assert load_model(folder)[1].description == "corrected a typing error"


def test_precision_is_part_of_the_digest(folder: Path):
    edit_card(folder, dtype="float64")
    with pytest.raises(ValueError, match="does not match its card"):
        load_model(folder)


def test_a_module_that_the_settings_do_not_describe_is_not_saved(tmp_path: Path):
    potential = tiny()

    class Other(type(potential.backbone)):
        """Looks the same, computes something else."""

    potential.backbone.__class__ = Other
    with pytest.raises(ValueError, match="do not describe its modules.*backbone"):
        save_model(tmp_path / "other", potential, ModelCard(name="other"))
    assert not (tmp_path / "other").exists()


def test_output_folder_of_a_training_run_stands_for_its_model(folder: Path):
    folder.rename(folder.parent / "model")
    assert find_model(folder.parent) == folder.parent / "model"


def test_shipped_models_have_the_current_format():
    for name, path in available_models().items():
        raw = json.loads((path / CARD_FILE).read_text())
        assert raw["format_version"] == checkpoint.FORMAT_VERSION, name
        assert read_card(name).sha256 == raw["sha256"]


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
