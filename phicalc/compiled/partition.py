"""A traced function and its derivatives, cut in two: forward and backward."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._functorch import config as functorch_config
from torch.fx import Graph, GraphModule, Node
from torch.utils.checkpoint import CheckpointPolicy


def cut(joint: GraphModule) -> tuple[GraphModule, GraphModule]:
    """Return the functions ``inputs → features, kept`` and ``inputs, kept, cotangent → gradients``.

    Parameters
    ----------
    joint
        The traced function ``inputs, cotangent → features, gradients``; it is changed.
    """
    *inputs, cotangent = placeholders(joint)
    for number, node in enumerate(inputs, start=1):  # names that the algorithm looks for
        _rename(node, f"primals_{number}")
    _rename(cotangent, "tangents_1")
    for node in joint.graph.nodes:  # the algorithm knows only torch's own expensive operations
        if getattr(node.target, "namespace", "") == "phicalc":
            node.meta["recompute"] = CheckpointPolicy.MUST_SAVE
    joint.graph.eliminate_dead_code()
    joint.recompile()
    proposed = _proposed_inputs(joint)
    *inputs, cotangent = placeholders(joint)  # the algorithm has changed the graph
    kept = _kept(joint, inputs, proposed)
    (output,) = [node for node in joint.graph.nodes if node.op == "output"]
    features, *gradients = output.args[0]
    forward = _part(joint, inputs, [features, *kept])
    return forward, _part(joint, [*inputs, *kept, cotangent], gradients)


def _proposed_inputs(joint: GraphModule) -> list[str]:
    """Names of what torch's min-cut algorithm hands from the forward to the backward part.

    Cheap operations are repeated instead of kept.
    """
    # This import loads torch's compiler: seconds that a process which compiles nothing can save.
    from functorch.compile import (  # type: ignore[import-untyped]
        min_cut_rematerialization_partition,
    )

    with functorch_config.patch(aggressive_recomputation=True):
        _, backward = min_cut_rematerialization_partition(joint, None, num_fwd_outputs=1)
    return [node.name for node in placeholders(backward)]


def _kept(joint: GraphModule, inputs: Sequence[Node], proposed: Sequence[str]) -> list[Node]:
    """Intermediate tensors that the forward part returns for the backward part."""
    nodes, varying = {node.name: node for node in joint.graph.nodes}, _descendants(inputs)
    wanted = [_base(nodes[name]) for name in proposed if name in nodes]
    return [
        node
        for node in dict.fromkeys(wanted)
        if node in varying and node not in inputs  # weights are in both parts
        if isinstance(node.meta["val"], Tensor)
    ]


def placeholders(traced: GraphModule) -> list[Node]:
    """Find the inputs of a traced function."""
    return [node for node in traced.graph.nodes if node.op == "placeholder"]


def _rename(node: Node, name: str) -> None:
    """Give an input another name."""
    node._rename(name)
    node.target = node.name


def _descendants(nodes: Sequence[Node]) -> set[Node]:
    """All nodes whose values depend on these."""
    found = set(nodes)
    for node in nodes[0].graph.nodes:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _base(node: Node) -> Node:
    """Tensor that this one is a view of: its memory is contiguous."""
    while getattr(node.target, "is_view", False) or node.target is torch.ops.aten.detach.default:
        node = node.all_input_nodes[0]
    return node


def _part(joint: GraphModule, inputs: Sequence[Node], outputs: Sequence[Node]) -> GraphModule:
    """Operations that lead from some nodes to others."""
    graph, copies = Graph(), dict[Node, Node]()
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = node.meta
    waiting = list(reversed(outputs))
    while waiting:
        missing = [each for each in waiting[-1].all_input_nodes if each not in copies]
        if waiting[-1] not in copies and missing:
            waiting += missing
            continue
        node = waiting.pop()
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    return GraphModule(joint, graph)


def symbolic_axes(node: Node) -> list[int]:
    """Axes whose size is not a number."""
    shape = node.meta["val"].shape
    return [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
