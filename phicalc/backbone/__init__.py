"""Backbones: networks that turn a graph into invariant features of every atom."""

from phicalc.backbone.interaction import EdgeFeatures, edge_features
from phicalc.backbone.nequip import NequIP, NequIPSettings
from phicalc.backbone.protocol import (
    BACKBONES,
    Accelerated,
    Backbone,
    BackboneKind,
    FromEdges,
    Specializable,
    Standardized,
    backbone_class,
    backbones_of,
    check_backbone,
    last_features,
)

__all__ = [
    "Accelerated",
    "BACKBONES",
    "Backbone",
    "BackboneKind",
    "EdgeFeatures",
    "FromEdges",
    "NequIP",
    "NequIPSettings",
    "Specializable",
    "Standardized",
    "backbone_class",
    "backbones_of",
    "check_backbone",
    "edge_features",
    "last_features",
]
