"""Penalties: parts of the loss that need no labels.

``residual`` and ``net_charge`` are those that arXiv:2505.14606 trains its Φ-Module with. With exact
solutions of one operator both are zero, and so are their gradients, whatever the network says:
``L φ = ρ`` is how φ and ρ are made, and the columns of L sum to zero (``solve`` hands out what is
missing to the net charge). Metrics report them as the diagnostics of the solvers that they are.
``charges`` keeps charges small where the data leave them free. ``missing_charge`` has the features
know the charge of each molecule, so that nothing is left to hand out when molecules part.
``integer_fragments`` goes on with what `phicalc.training.states` does before training: formal
charges then follow energies, too.
"""

import torch
from jaxtyping import Float64

from phicalc.derivatives import Prediction
from phicalc.graph import AtomicGraph, mean_per_structure
from phicalc.training.integer_charges import charge_defects
from phicalc.training.loss import LossValue, excess_charge
from phicalc.training.objective import PenaltyConfig


def penalized(
    value: LossValue,
    prediction: Prediction,
    graph: AtomicGraph,
    config: PenaltyConfig,
    n_structures: int,
    charges: Float64[torch.Tensor, " n_atoms"] | None = None,
) -> LossValue:
    """Add the penalties that have a weight to a loss.

    Means over structures, of which the whole batch has `n_structures`, and over the atoms of each:
    ``residual``, squares of what is left of Poisson's equation (e²); ``net_charge``, ``|Σρ − Q|``
    (e); ``charges``, squares of the charges (e²); ``missing_charge``, what the features lack of the
    total charge (e); ``integer_fragments``, see `charge_defects`,
    which takes labels of the `charges` (e) where there are any.
    """
    terms = dict(value.terms)
    if config.residual:
        assert prediction.residual is not None
        squares = prediction.residual.square().mean(1)
        terms["residual"] = mean_per_structure(squares, graph).sum() / n_structures
    if config.net_charge:
        terms["net_charge"] = excess_charge(prediction, graph).abs().sum() / n_structures
    if config.charges:
        assert prediction.charges is not None
        squares = prediction.charges.square()
        terms["charge_size"] = mean_per_structure(squares, graph).sum() / n_structures
    if config.missing_charge:
        assert prediction.missing is not None
        terms["missing_charge"] = (
            mean_per_structure(prediction.missing.abs(), graph).sum() / n_structures
        )
    if config.integer_fragments:
        assert prediction.formal is not None
        terms["integer_fragments"] = (
            charge_defects(prediction.formal, graph, charges) / n_structures
        )
    weights = {
        "residual": config.residual,
        "net_charge": config.net_charge,
        "charge_size": config.charges,
        "missing_charge": config.missing_charge,
        "integer_fragments": config.integer_fragments,
    }
    added = [weight * terms[name] for name, weight in weights.items() if weight]
    return LossValue(sum(added, start=value.total), terms)
