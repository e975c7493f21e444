"""Whole steps on a GPU, recorded once and replayed with one launch (CUDA graphs).

What is recorded runs on tensors that stay where they are (`step`). So that neighbors may come and
go, inputs have more room than they need, filled with edges beyond every cutoff (`room`). On the way
nothing may be looked at: no number decides what is done next. Where that cannot be, or a recording
is not good, predictions are those of plain torch.
"""

from phicalc.captured.predictor import CapturedPredictor

__all__ = ["CapturedPredictor"]
