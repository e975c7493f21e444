"""Penalties: parts of the loss that need no labels.

``residual`` and ``net_charge`` are those that arXiv:2505.14606 trains its Φ-Module with. With exact
solutions of one operator both are zero, and so are their gradients, whatever the network says:
``L φ = ρ`` is how φ and ρ are made, and the columns of L sum to zero (``solve`` hands out what is
missing to the net charge). Metrics report them as the diagnostics of the solvers that they are.
``charges`` is one that does something: it keeps charges small where the data leave them free.
"""

from phicalc.derivatives import Prediction
from phicalc.graph import AtomicGraph
from phicalc.training.config import PenaltyConfig
from phicalc.training.loss import LossValue, excess_charge


def penalized(
    value: LossValue, prediction: Prediction, graph: AtomicGraph, config: PenaltyConfig
) -> LossValue:
    """Add the penalties that have a weight to a loss.

    ``residual``: mean square of what is left of Poisson's equation (e²); ``net_charge``: mean over
    structures of ``|Σρ − Q|`` (e); ``charges``: mean square of the charges (e²).
    """
    terms, total = dict(value.terms), value.total
    if config.residual:
        assert prediction.residual is not None
        terms["residual"] = prediction.residual.square().mean()
        total = total + config.residual * terms["residual"]
    if config.net_charge:
        terms["net_charge"] = excess_charge(prediction, graph).abs().mean()
        total = total + config.net_charge * terms["net_charge"]
    if config.charges:
        assert prediction.charges is not None
        terms["charge_size"] = prediction.charges.square().mean()
        total = total + config.charges * terms["charge_size"]
    return LossValue(total, terms)
