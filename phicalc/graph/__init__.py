"""A batch of atomic structures with their edges: the one record that travels down the pipeline."""

from phicalc.graph.batch import collate, collate_dispersion
from phicalc.graph.build import from_ase, from_tensors, slots, whole_structures
from phicalc.graph.conditions import Conditions, ConditionsError, read_conditions
from phicalc.graph.flat import flattened, unflattened
from phicalc.graph.geometry import (
    edge_vectors,
    field_coordinate,
    from_slots,
    mass_centers,
    mean_per_structure,
    of_structure,
    pair_vectors,
    reciprocal_boxes,
    sum_per_structure,
    to_slots,
    volumes,
)
from phicalc.graph.parts import bonded_parts, connected_parts
from phicalc.graph.record import AtomicGraph, CoulombPlan, DispersionPlan, Fragments

__all__ = [
    "AtomicGraph",
    "Conditions",
    "ConditionsError",
    "CoulombPlan",
    "DispersionPlan",
    "Fragments",
    "bonded_parts",
    "collate",
    "collate_dispersion",
    "connected_parts",
    "edge_vectors",
    "field_coordinate",
    "flattened",
    "from_ase",
    "from_slots",
    "from_tensors",
    "mass_centers",
    "mean_per_structure",
    "of_structure",
    "pair_vectors",
    "read_conditions",
    "reciprocal_boxes",
    "slots",
    "sum_per_structure",
    "to_slots",
    "unflattened",
    "volumes",
    "whole_structures",
]
