from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from phicalc.backbone.sizes import SIZES
from phicalc.potential import PotentialConfig
from phicalc.schema import apply_override, dump_yaml, parse_yaml
from phicalc.training.config import (
    FITTED,
    DataConfig,
    TrainingConfig,
    config_from_dict,
    load_config,
)
from phicalc.training.objective import LossConfig, TermConfig

from ..tiny import flat_config

MINIMAL = """
data:
  train: [a.xyz]
model:
  elements: [H, O]
"""


def test_minimal_file_gets_the_defaults(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(MINIMAL)
    config = load_config(path)
    assert config.data.train == ("a.xyz",)
    assert config.model == flat_config(elements=("H", "O"))
    assert config.loss.forces.weight == 1


def test_resolved_copy_reads_back_to_the_same_configuration(make_config):
    config = make_config(schedule={"final": 1e-5}, patience=3, compile="auto")
    assert config_from_dict(parse_yaml(dump_yaml(config.to_dict()))) == config


def names(cls: type) -> dict[str, Any]:
    """Every key that a configuration has, nested."""
    result = {}
    for field in dataclasses.fields(cls):
        default = field.default
        if hasattr(default, "from_settings"):  # a section {name: …, option: …}
            result[field.name] = {"name": None} | names(type(default.settings))
            continue
        nested = type(default) if dataclasses.is_dataclass(default) else None
        nested = {"data": DataConfig, "model": PotentialConfig}.get(field.name, nested)
        result[field.name] = names(nested) if nested else None
    return result


def keys(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: keys(v) if isinstance(v, dict) else None for k, v in settings.items()}


def test_resolved_copy_holds_every_default(make_config):
    expected = names(TrainingConfig)
    for name in FITTED:
        del expected["model"][name]
    assert keys(make_config().to_dict()) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimiser: {lr: 0.1}", r"unknown key 'optimiser'.*'optimizer'"),
        ("optimizer: {learn: 0.1}", r"unknown key 'optimizer.learn'.*Known keys.*lr"),
        ("loss: {forces: {wieght: 1}}", r"'loss.forces.wieght'.*'weight'"),
        ("optimizer: {lr: fast}", r"'optimizer.lr' must be a number, got 'fast'"),
        ("optimizer: {lr: true}", r"'optimizer.lr' must be a number, got True"),
        ("optimizer: {lr: -1}", r"'optimizer.lr' must be positive, got -1"),
        ("optimizer: {name: adan}", r"'optimizer.name' must be one of.*'adam'"),
        ("optimizer: 3", r"'optimizer' must be a section"),
        ("max_epochs: 1.5", r"'max_epochs' must be a whole number, got 1.5"),
        ("max_epochs: 0", r"'max_epochs' must be ≥ 1, got 0"),
        ("compile: maybe", r"'compile' must be one of 'auto', True, False"),
        ("loss: {energy: {weight: 0}, forces: {weight: 0}}", r"loss: every weight is 0"),
        ("loss: {energy: {weight: -1}}", r"'loss.energy.weight' must be ≥ 0, got -1"),
        ("loss: {energy: {start: 0.6, end: 0.6}}", r"loss.energy: 'start' and 'end'.*0.6 and 0.6"),
        (
            "loss: {energy: {weight: 1, start: 0.5}, forces: {weight: 1, end: 0.4}}",
            r"no term of the loss counts after the fraction 0.4 of the run",
        ),
        ("schedule: {final: 2}", r"'schedule.final' must be in \[0, 1\]"),
        ("seed: 1\nseed: 2", r"'seed' appears twice"),
        ("seed: [1", r"not valid YAML"),
    ],
)
def test_wrong_settings_are_named(tmp_path, text, message):
    path = tmp_path / "train.yaml"
    path.write_text(MINIMAL + text)
    with pytest.raises(ValueError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "'data.train'; it has no default"),
        ({"train": []}, "'data.train' must not be empty"),
        ({"train": "a.xyz"}, "'data.train' must be a list"),
        ({"train": ["a"], "valid": ["b"]}, "exactly when 'split' is 'files'"),
        ({"train": ["a"], "split": "files"}, "exactly when 'split' is 'files'"),
        ({"train": ["a"], "valid_fraction": 1.0}, "valid_fraction"),
        ({"train": ["a"], "reference_energies": {"H": "x"}}, "'data.reference_energies.H'"),
    ],
)
def test_wrong_data_sections_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        config_from_dict({"data": data, "model": {"elements": ["H"]}})


@pytest.mark.parametrize("name", FITTED)
def test_fitted_values_cannot_be_set(settings, name):
    settings["model"][name] = 1.0
    with pytest.raises(ValueError, match=f"'model.{name}' is fitted"):
        config_from_dict(settings)


def test_missing_elements_are_named(settings):
    del settings["model"]["elements"]
    with pytest.raises(ValueError, match=r"'model.elements'"):
        config_from_dict(settings)


def test_overrides_change_nested_values(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(MINIMAL)
    config = load_config(
        path, ["optimizer.lr=1e-3", "model.elements=[C]", "patience=5", "loss.dipole.weight=2"]
    )
    assert config.optimizer.lr == 0.001
    assert config.model.elements == ("C",)
    assert config.patience == 5
    assert config.loss.dipole.weight == 2
    assert config.loss.forces.weight == 1  # its neighbours keep their defaults


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "reads section.key=value"),
        (".seed=1", "reads section.key=value"),
        ("seed.more=1", "'seed' as a section"),
    ],
)
def test_wrong_overrides_are_explained(override, message):
    with pytest.raises(ValueError, match=message):
        apply_override({"seed": 1}, override)


def test_override_with_unknown_key_is_refused(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(MINIMAL)
    with pytest.raises(ValueError, match=r"unknown key 'model.cutof'.*'cutoff'"):
        load_config(path, ["model.cutof=3"])
    with pytest.raises(ValueError, match=r"unknown key 'model.backbone.chanels'.*'channels'"):
        load_config(path, ["model.backbone.name=nequip", "model.backbone.chanels=3"])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no configuration file .*none.yaml"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("2E+2", 200.0), ("-1e5", -1e5)])
def test_numbers_without_a_dot_are_numbers(text, value):
    assert parse_yaml(f"x: {text}") == {"x": value}


def test_weights_change_late_in_the_run():
    at_once = LossConfig(energy=TermConfig(1.0, final_weight=9.0), final_from=0.5)
    found = [at_once.at(progress).energy.weight for progress in (0.0, 0.49, 0.5, 0.99, 1.0)]
    assert found == [1, 1, 9, 9, 9]
    slowly = dataclasses.replace(at_once, final_over=0.4)
    found = [slowly.at(progress).energy.weight for progress in (0.0, 0.5, 0.6, 0.7, 0.9, 1.0)]
    assert found == pytest.approx([1, 1, 3, 5, 9, 9])
    assert slowly.at(0.7).forces == slowly.forces
    assert slowly.changes
    assert not slowly.at(0.3).changes
    assert LossConfig().at(0.3) == LossConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"energy": TermConfig(1.0, final_weight=0.0), "forces": TermConfig()}, "at the end of"),
        ({"final_from": 1.0}, r"'final_from' must be in \[0, 1\), got 1.0"),
        ({"final_from": 0.8, "final_over": 0.3}, "at most 1; got 0.8 and 0.3"),
    ],
)
def test_impossible_changes_of_weights(settings, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**settings)
    with pytest.raises(ValueError, match="'final_weight' must be ≥ 0, got -1"):
        TermConfig(1.0, final_weight=-1.0)


def test_gaps_where_final_weights_begin_are_found():
    energy, forces = TermConfig(1.0, start=0.9), TermConfig(1.0, final_weight=0.0)
    with pytest.raises(ValueError, match="no term of the loss counts after the fraction 0.75"):
        LossConfig(energy=energy, forces=forces, final_from=0.75)
    with pytest.raises(ValueError, match="no term of the loss counts after the fraction 0.85"):
        LossConfig(energy=energy, forces=forces, final_from=0.75, final_over=0.1)


FLAT = "\ndata: {train: [a.xyz]}\nmodel: {elements: [H, O], %s}\n"


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ("layers: 2", r"'model.layers' is now 'model.backbone.layers'"),
        ("hardness: environment", r"'model.hardness' is now 'model.head.hardness'"),
        ("electrostatic_energy: coulomb", r"is now 'model.head.energy'"),
        ("head: latent, latent_smearing: 1.2", r"is now 'model.head.smearing'"),
        ("smearing: trained", r"'model.head.trained_smearing' \(true where it was 'trained'"),
        ("head: solve, phi_channels: 3", r"is now 'model.head.channels'"),
        ("head: {name: solve}, phi_channels: 3", r"is now 'model.head.channels'"),
        ("head: latent, hardness: element", r"option of the head 'qeq', not of 'latent': remove"),
        ("charge_feedback: network", r"'model.charge_feedback' is now 'model.feedback'"),
        ("charge_range: [-2, 2]", r"is now 'model.feedback.charge_range'"),
    ],
)
def test_flat_settings_are_refused_with_their_new_place(flat, message, tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(FLAT % flat)
    with pytest.raises(ValueError, match=message):
        load_config(path)


def test_the_block_in_the_message_about_flat_settings_is_the_same_model(tmp_path):
    options = "layers: 1, head: qeq, hardness: environment, charge_feedback: network"
    path = tmp_path / "old.yaml"
    path.write_text(FLAT % f"{options}, feedback_layers: 1")
    with pytest.raises(ValueError, match="The same model reads") as caught:
        load_config(path)
    path.write_text(FLAT % str(caught.value).partition("The same model reads ")[2])
    expected = flat_config(
        elements=("H", "O"),
        layers=1,
        hardness="environment",
        charge_feedback="network",
        feedback_layers=1,
    )
    assert load_config(path).model == expected


def test_flat_settings_of_overrides_get_their_new_place(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(MINIMAL)
    with pytest.raises(ValueError, match=r"is now 'model.backbone.layers'"):
        load_config(path, ["model.layers=2"])


def test_overrides_reach_options_of_sections_that_are_names(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(MINIMAL + "  head: qeq\n")
    overrides = ["model.head.hardness=environment", "model.backbone.layers=3"]
    config = load_config(path, overrides)
    assert config.model.backbone.settings.layers == 3
    assert config.model.head.settings.hardness == "environment"


@pytest.mark.parametrize("size", SIZES)
def test_sizes_of_the_network_are_written_out(size, tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(f"{MINIMAL}  backbone: {size}\n")
    for overrides, changed in (([], {}), (["model.backbone.l_max=1"], {"l_max": 1})):
        config = load_config(path, overrides)
        wanted = {**SIZES[size], **changed}
        assert config.model.backbone.name == "nequip"
        assert {key: getattr(config.model.backbone.settings, key) for key in wanted} == wanted
        assert config_from_dict(parse_yaml(dump_yaml(config.to_dict()))) == config
    given = {"backbone": {"name": size, "channels": 5}, "elements": ["H"]}
    config = config_from_dict({"data": {"train": ["a.xyz"]}, "model": given})
    assert config.model.backbone.settings.channels == 5


@pytest.mark.parametrize(
    ("name", "hint"), [("huge", r"\. Sizes: small, medium, large"), ("medum", "'medium'")]
)
def test_no_other_name_is_a_size(name, hint):
    with pytest.raises(ValueError, match=f"unknown backbone '{name}'.*{hint}"):
        config_from_dict(
            {"data": {"train": ["a.xyz"]}, "model": {"backbone": name, "elements": ["H"]}}
        )
