"""What is wrong with the settings of a run, said before the first label is paid for."""

from collections.abc import Sequence

from ase import Atoms

from phicalc.checkpoint import load_model, read_card
from phicalc.data.config import KeysConfig
from phicalc.data.files import find_data_file, read_frames
from phicalc.data.frames import label_atoms
from phicalc.improvement.config import ImprovementConfig
from phicalc.improvement.rounds import LABELS_FILE, elements_of, training_values
from phicalc.training import TrainingConfig, config_from_dict
from phicalc.training.dataset import required_labels


def check_beforehand(config: ImprovementConfig, structures: Sequence[Atoms]) -> None:
    """Refuse what would end a run later: after labels, or after minutes of validation.

    Parameters
    ----------
    config
        The settings.
    structures
        Where to explore from.

    Raises
    ------
    FileNotFoundError
        If a file with labelled frames is missing.
    ValueError
        For structures without atoms, elements that the model does not know, settings of training
        that are not understood, frames without the labels that these need, a reference calculator
        that cannot be made, and a model without uncertainty where frames are chosen by it.
    """
    if not structures or not all(map(len, structures)):
        raise ValueError("'structures' need at least one atom each")
    elements = elements_of(structures)
    config.calculator.try_out(elements[0])
    if config.model is not None:
        known = _known(config, elements)
        elements = known if config.finetune else elements
    training = training_of(config, elements)
    if both := sorted({*config.data} & {*config.test}):
        raise ValueError(f"{', '.join(both)} is among 'data' and 'test': choose one")
    for name in (*config.data, *config.test):
        path = find_data_file(name)
        for frame in read_frames(path, KeysConfig(), required_labels(training.loss)):
            if unknown := sorted(set(frame.atoms.symbols) - set(elements)):
                raise ValueError(
                    f"{frame.origin} holds {', '.join(unknown)}, but the model of this run knows "
                    f"{', '.join(elements)}: leave such frames out, or give structures to explore "
                    "from that have these elements"
                )


def _known(config: ImprovementConfig, elements: Sequence[str]) -> list[str]:
    """Return the elements of the model that is given, if it suits the run."""
    assert config.model is not None
    known: list[str] = list(read_card(config.model).potential["elements"])
    if unknown := sorted(set(elements) - set(known)):
        raise ValueError(
            f"model {config.model!r} does not know {', '.join(unknown)} (it knows "
            f"{', '.join(known)}), and a model cannot learn new elements: leave 'model' out"
        )
    uncertain = load_model(config.model, device="cpu")[0].uncertainty is not None
    if config.select == "uncertainty" and not uncertain:
        raise ValueError(
            f"model {config.model!r} has no uncertainty to choose frames by: run phicalc "
            f"uncertainty {config.model} first, or set select: random"
        )
    if config.finetune and "model" in config.train:
        raise ValueError(
            "'train.model' says what a new model is like, but 'model' gives one that is "
            "fine-tuned: leave one of them out, or set finetune: false"
        )
    return known


def check_reference_labels(config: ImprovementConfig, labelled: Atoms) -> None:
    """Refuse labels that training needs and the reference calculator does not give.

    Parameters
    ----------
    config
        The settings.
    labelled
        A structure with the labels that it gives.

    Raises
    ------
    ValueError
        Naming them.
    """
    training = training_of(config, elements_of([labelled]))
    labels = label_atoms(labelled, KeysConfig()).labels
    for name in required_labels(training.loss):
        if not bool(getattr(labels, name).isfinite().all()):
            raise ValueError(
                f"'train.loss.{name}' has a weight, but {config.calculator.name} gives no "
                f"{name.replace('_', ' ')} of {labelled.get_chemical_formula()}: set the weight "
                f"to 0, or train.loss.{name}.required to false if other frames have it"
            )


def training_of(config: ImprovementConfig, elements: Sequence[str]) -> TrainingConfig:
    """Return the settings of training, with a file that stands for those of the rounds.

    Parameters
    ----------
    config
        The settings.
    elements
        Symbols that a new model knows.

    Raises
    ------
    ValueError
        If they are not understood.
    """
    values = training_values(config, config.model, elements, config.output)
    values["data"] = {"train": [LABELS_FILE]}
    try:
        return config_from_dict(values)
    except ValueError as error:
        raise ValueError(f"'train': {error}") from error
