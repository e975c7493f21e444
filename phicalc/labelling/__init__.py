"""Labels for one's own data: any ASE calculator over structures or over dynamics of its own.

From Python::

    from phicalc.labelling import CalculatorSpec, DynamicsSampler, label
    label(structures, CalculatorSpec("gfn2-xtb"), "labelled.extxyz", DynamicsSampler(frames=50))

From the shell: ``phicalc label molecule.xyz --sample md --frames 50``.
"""

from phicalc.labelling.calculators import CalculatorSpec as CalculatorSpec
from phicalc.labelling.deformations import CompressedSampler as CompressedSampler
from phicalc.labelling.deformations import DissociationSampler as DissociationSampler
from phicalc.labelling.deformations import PairSampler as PairSampler
from phicalc.labelling.modes import ModeSampler as ModeSampler
from phicalc.labelling.relaxations import RelaxationSampler as RelaxationSampler
from phicalc.labelling.result import LabellingResult as LabellingResult
from phicalc.labelling.result import NothingLabelledError as NothingLabelledError
from phicalc.labelling.run import label as label
from phicalc.labelling.sampling import DynamicsSampler as DynamicsSampler
from phicalc.labelling.sampling import GivenStructures as GivenStructures
from phicalc.labelling.sampling import RattleSampler as RattleSampler
from phicalc.labelling.torsions import TorsionSampler as TorsionSampler

__all__ = [
    "CalculatorSpec",
    "CompressedSampler",
    "DissociationSampler",
    "DynamicsSampler",
    "GivenStructures",
    "LabellingResult",
    "ModeSampler",
    "NothingLabelledError",
    "PairSampler",
    "RattleSampler",
    "RelaxationSampler",
    "TorsionSampler",
    "label",
]
