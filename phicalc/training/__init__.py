"""Training potentials on labelled structures, and measuring their errors.

From Python::

    from phicalc.training import train_from_yaml, evaluate_model
    train_from_yaml("train.yaml", ["max_epochs=10"])
    evaluate_model("training_output/model", "test.xyz")

From the shell: ``python -m phicalc.training train.yaml max_epochs=10``; on several processors
``torchrun --nproc-per-node 2 -m phicalc.training train.yaml``.
"""

from phicalc.data.inspection import Inspection as Inspection
from phicalc.data.inspection import inspect_frames as inspect_frames
from phicalc.data.inspection_page import inspect_files as inspect_files
from phicalc.training.attach import add_uncertainty as add_uncertainty
from phicalc.training.committee import train_committee as train_committee
from phicalc.training.committee import train_committee_from_yaml as train_committee_from_yaml
from phicalc.training.config import TrainingConfig as TrainingConfig
from phicalc.training.config import config_from_dict as config_from_dict
from phicalc.training.config import load_config as load_config
from phicalc.training.evaluate import evaluate_model as evaluate_model
from phicalc.training.run import TrainingResult as TrainingResult
from phicalc.training.run import train as train
from phicalc.training.run import train_from_yaml as train_from_yaml
from phicalc.training.trainer import TrainingDiverged as TrainingDiverged

__all__ = [
    "Inspection",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingResult",
    "add_uncertainty",
    "config_from_dict",
    "evaluate_model",
    "inspect_frames",
    "inspect_files",
    "load_config",
    "train",
    "train_committee",
    "train_committee_from_yaml",
    "train_from_yaml",
]
