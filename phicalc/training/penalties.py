"""Penalties: parts of the loss that need no labels.

``residual`` and ``net_charge`` are those that arXiv:2505.14606 trains its Φ-Module with. With exact
solutions of one operator both are zero, and so are their gradients, whatever the network says:
``L φ = ρ`` is how φ and ρ are made, and the columns of L sum to zero (``solve`` hands out what is
missing to the net charge). Metrics report them as the diagnostics of the solvers that they are.
``charges`` keeps charges small where the data leave them free. ``integer_fragments`` makes
the states of atoms certain, and formal charges sum to the charge of each molecule and structure, so
that nothing is shared out among molecules.
"""

import torch
from jaxtyping import Float64, Int64

from phicalc.derivatives import Prediction
from phicalc.electrostatics.head import Formal
from phicalc.graph import AtomicGraph, bonded_parts, mean_per_structure, sum_per_structure
from phicalc.training.loss import LossValue, excess_charge
from phicalc.training.objective import PenaltyConfig

#: ε in e²: below this variance of its charge, a molecule counts as certain.
DOUBT = 0.01


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
    (e); ``charges``, squares of the charges (e²); ``integer_fragments``, see `charge_defects`,
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
    if config.integer_fragments:
        assert prediction.formal is not None
        terms["integer_fragments"] = (
            charge_defects(prediction.formal, graph, charges) / n_structures
        )
    weights = {
        "residual": config.residual,
        "net_charge": config.net_charge,
        "charge_size": config.charges,
        "integer_fragments": config.integer_fragments,
    }
    added = [weight * terms[name] for name, weight in weights.items() if weight]
    return LossValue(sum(added, start=value.total), terms)


def charge_defects(
    formal: Formal,
    graph: AtomicGraph,
    charges: Float64[torch.Tensor, " n_atoms"] | None = None,
) -> Float64[torch.Tensor, ""]:
    """Sum up how unlikely formal charges make the charges of molecules, over a batch.

    Parameters
    ----------
    formal
        Formal charges, before what is missing is shared out, and how certain they are.
    graph
        The batch.
    charges
        Labels in e, NaN where there are none.

    Returns
    -------
    defects
        ``½ (Q − Σf)²/(σ² + ε) + ½ ln(1 + σ²/ε)`` for each structure, and for each bonded part of
        structures with several: but for a constant, minus the logarithm of the probability of Q if
        atoms draw their states independently (as a Gaussian with the variance σ² of their sum). Q
        is the total charge; of a part the integer nearest to the sum of its labels, or else of f.
    """
    part = bonded_parts(graph)  # the first atom of each
    sums = _at_parts(formal.read, part)
    labeled = sums if charges is None else _at_parts(charges, part)
    target = torch.where(labeled.isfinite(), labeled, sums).detach().round()
    begins = part == torch.arange(len(part), device=part.device)
    several = begins & (sum_per_structure(begins.double(), graph)[graph.batch] > 1)
    parts = _misfit(sums - target, _at_parts(formal.variance, part))
    missing = sum_per_structure(formal.read, graph) - graph.total_charge
    wholes = _misfit(missing, sum_per_structure(formal.variance, graph))
    return torch.where(several, parts, 0.0).sum() + wholes.sum()


def _at_parts(
    values: Float64[torch.Tensor, " n_atoms"], part: Int64[torch.Tensor, " n_atoms"]
) -> Float64[torch.Tensor, " n_atoms"]:
    """Sum over the atoms of each part, at its first atom."""
    return torch.zeros_like(values).index_add(0, part, values)


def _misfit(
    missing: Float64[torch.Tensor, " n"], variance: Float64[torch.Tensor, " n"]
) -> Float64[torch.Tensor, " n"]:
    """Minus the logarithm of a Gaussian, zero where nothing is missing (e) and all is certain."""
    return 0.5 * missing**2 / (variance + DOUBT) + 0.5 * torch.log1p(variance / DOUBT)
