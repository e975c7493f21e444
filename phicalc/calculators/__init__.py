"""ASE calculators: of one potential, and of a committee."""

from phicalc.calculators.committee import CommitteeCalculator
from phicalc.calculators.phicalculator import PhiCalculator

__all__ = ["CommitteeCalculator", "PhiCalculator"]
