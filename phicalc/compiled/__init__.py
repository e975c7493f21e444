"""Compiled inference: a potential as native functions, kept on disk.

Small structures are predicted by one function with everything in it, derivatives included
(`whole`). For all others the network alone is compiled, forward and backward (`network`), and the
electrostatic part is plain torch around it. Functions are compiled ahead of time (AOTInductor) with
symbols for all sizes, and loaded in a moment by every later process.
"""

from phicalc.compiled.background import BackgroundPredictor
from phicalc.compiled.cache import cache_folder
from phicalc.compiled.predictor import CompiledPredictor, Mode

__all__ = ["BackgroundPredictor", "CompiledPredictor", "Mode", "cache_folder"]
