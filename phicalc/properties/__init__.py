"""Properties of crystals and molecules, of any ASE calculator: one function for each."""

from phicalc.properties.elastic import ElasticResult, elastic_constants
from phicalc.properties.eos import EquationOfStateResult, equation_of_state
from phicalc.properties.phonons import PhononResult, phonons
from phicalc.properties.vibrations import VibrationResult, vibrations

__all__ = [
    "ElasticResult",
    "EquationOfStateResult",
    "PhononResult",
    "VibrationResult",
    "elastic_constants",
    "equation_of_state",
    "phonons",
    "vibrations",
]
