"""All samplers by their names in the shell and in the file of provenance."""

from phicalc.labelling.deformations import CompressedSampler, DissociationSampler, PairSampler
from phicalc.labelling.modes import ModeSampler
from phicalc.labelling.relaxations import RelaxationSampler
from phicalc.labelling.sampling import DynamicsSampler, GivenStructures, RattleSampler
from phicalc.labelling.torsions import TorsionSampler

Sampler = (
    GivenStructures
    | RattleSampler
    | DynamicsSampler
    | RelaxationSampler
    | ModeSampler
    | TorsionSampler
    | PairSampler
    | DissociationSampler
    | CompressedSampler
)

SAMPLERS: dict[str, type[Sampler]] = {
    "none": GivenStructures,
    "rattle": RattleSampler,
    "md": DynamicsSampler,
    "relax": RelaxationSampler,
    "modes": ModeSampler,
    "torsions": TorsionSampler,
    "pairs": PairSampler,
    "dissociation": DissociationSampler,
    "compressed": CompressedSampler,
}
