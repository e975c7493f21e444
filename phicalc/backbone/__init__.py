"""Backbones: networks that turn a graph into invariant features of every atom."""

from phicalc.backbone.nequip import EdgeFeatures, NequIP, edge_features

__all__ = ["EdgeFeatures", "NequIP", "edge_features"]
