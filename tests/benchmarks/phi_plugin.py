"""Trains another program's network with and without a Φ-Module on its features.

``python phi_plugin.py NETWORK MODE FILE EPOCHS SEED`` in an environment that holds the other
program and what phicalc needs, phicalc itself on the PYTHONPATH. NETWORK is ``mace`` or ``schnet``
(that of torch_geometric), MODE ``none`` or a mode of `phicalc.electrostatics.PhiModule`. FILE has
frames of isolated molecules with ``info["split"]`` "train" and "val". Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from typing import NamedTuple

import ase.io
import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from phicalc.data.composition import count_elements, fit_reference_energies
from phicalc.electrostatics import PhiModule
from phicalc.graph import AtomicGraph, collate, from_ase, from_tensors

CUTOFF = 4.0
BATCH = 8


class Mace(nn.Module):
    """MACE of 32 scalars and 32 vectors; its features are the scalars of both layers."""

    n_features = 64

    def __init__(self, numbers: list[int], neighbors: float):
        super().__init__()
        import mace.modules as modules
        from e3nn import o3

        block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        self.network = modules.ScaleShiftMACE(
            r_max=CUTOFF, num_bessel=8, num_polynomial_cutoff=5, max_ell=2, interaction_cls=block,
            interaction_cls_first=block, num_interactions=2, num_elements=len(numbers),
            hidden_irreps=o3.Irreps("32x0e + 32x1o"), MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(len(numbers)), avg_num_neighbors=neighbors,
            atomic_numbers=numbers, correlation=2, gate=nn.functional.silu,
            atomic_inter_scale=1.0, atomic_inter_shift=0.0, radial_MLP=[32, 32],
        )  # fmt: skip
        self.numbers = torch.tensor(numbers)

    def forward(self, graph: AtomicGraph) -> tuple[Tensor, Tensor]:
        """Energies, and invariant features of the atoms."""
        edges = torch.zeros_like(graph.edge_shifts).to(graph.positions)
        starts = torch.searchsorted(graph.batch, torch.arange(graph.n_structures + 1))
        onehot = (graph.atomic_numbers[:, None] == self.numbers).to(graph.positions)
        data = {
            "positions": graph.positions, "node_attrs": onehot, "edge_index": graph.edge_index,
            "shifts": edges, "unit_shifts": edges, "cell": graph.cell.reshape(-1, 3),
            "batch": graph.batch, "ptr": starts,
        }  # fmt: skip
        found = self.network(data, training=True, compute_force=False)
        features = found[
            "node_feats"
        ]  # scalars and vectors of the first layer, scalars of the last
        return found["energy"], torch.cat([features[:, :32], features[:, -32:]], dim=1)


class SchNet(nn.Module):
    """SchNet of 64 features and three interactions."""

    n_features = 64

    def __init__(self, numbers: list[int], neighbors: float):
        super().__init__()
        from torch_geometric.nn.models import SchNet as Network

        self.network = Network(64, 64, num_interactions=3, num_gaussians=32, cutoff=CUTOFF)

    def forward(self, graph: AtomicGraph) -> tuple[Tensor, Tensor]:
        """Energies, and invariant features of the atoms."""
        net, (first, second) = self.network, graph.edge_index
        lengths = (graph.positions[second] - graph.positions[first]).norm(dim=1)
        features = net.embedding(graph.atomic_numbers)
        for interaction in net.interactions:
            features = features + interaction(
                features, graph.edge_index, lengths, net.distance_expansion(lengths)
            )
        energies = net.lin2(net.act(net.lin1(features))).squeeze(1)
        return energies.new_zeros(graph.n_structures).index_add(0, graph.batch, energies), features


class WithPhi(nn.Module):
    """The network, and the Φ-Module behind it: this is all that a user has to write."""

    def __init__(self, network: Mace | SchNet, mode: str, scale: float):
        super().__init__()
        self.network, self.scale = network, scale
        self.phi = None
        if mode != "none":
            self.phi = PhiModule(network.n_features, CUTOFF, mode=mode, scale=scale)

    def forward(self, graph: AtomicGraph) -> Tensor:
        """Energies in eV."""
        energy, features = self.network(graph)
        energy = self.scale * energy
        if self.phi is None:
            return energy
        phi_graph = from_tensors(
            graph.positions, graph.edge_index, batch=graph.batch, total_charge=graph.total_charge
        )
        return energy + self.phi(features, phi_graph).energy


class Sample(NamedTuple):
    """A structure with its labels."""

    graph: AtomicGraph
    energy: float
    forces: Tensor


def errors(model: nn.Module, samples: list[Sample], grad: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Errors of energies per atom and of forces, and the numbers of atoms."""
    graph = collate([sample.graph for sample in samples])
    positions = graph.positions.clone().requires_grad_()
    energy = model(graph._replace(positions=positions))
    (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=grad)
    counts = torch.bincount(graph.batch).to(energy)
    wrong = (energy - torch.tensor([sample.energy for sample in samples])) / counts
    return wrong, -slope - torch.cat([sample.forces for sample in samples]), counts


def read(path: str, numbers: list[int]) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples, reference energies taken off."""
    frames = ase.io.read(path, ":")
    split: dict[str, list[Atoms]] = {"train": [], "val": []}
    for atoms in frames:
        split[atoms.info["split"]].append(atoms)
    graphs = {name: [from_ase(atoms, CUTOFF) for atoms in split[name]] for name in split}
    totals = {name: np.array([a.get_potential_energy() for a in split[name]]) for name in split}
    counts = {name: count_elements(graphs[name], numbers) for name in split}
    references = fit_reference_energies(counts["train"], totals["train"]).energies
    rest = {name: totals[name] - counts[name] @ references for name in split}
    samples = {
        name: [
            Sample(graph, float(energy), torch.tensor(atoms.get_forces()))
            for graph, energy, atoms in zip(graphs[name], rest[name], split[name], strict=True)
        ]
        for name in split
    }
    return samples["train"], samples["val"]


def main() -> None:
    """Train and print the errors on the validation frames."""
    network, mode, path, epochs, seed = sys.argv[1:]
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(int(seed))
    numbers = sorted({int(z) for atoms in ase.io.read(path, ":20") for z in atoms.numbers})
    train, valid = read(path, numbers)
    edges = sum(sample.graph.n_edges for sample in train)
    neighbors = edges / sum(sample.graph.n_atoms for sample in train)
    scale = float(torch.cat([sample.forces for sample in train]).square().mean().sqrt())
    model = WithPhi({"mace": Mace, "schnet": SchNet}[network](numbers, neighbors), mode, scale)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    n_steps = int(epochs) * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps, 1e-5)
    generator, start = np.random.default_rng(int(seed)), time.perf_counter()
    for _ in range(int(epochs)):
        order = generator.permutation(len(train))
        for batch in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
            energy, forces, _ = errors(model, [train[i] for i in batch], grad=True)
            loss = (3 * energy.abs().mean() + forces.norm(dim=1).mean()) / scale
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - start
    found = [errors(model, valid[i : i + 50], grad=False) for i in range(0, len(valid), 50)]
    energy, forces = (torch.cat([each[k].detach() for each in found]) for k in (0, 1))
    weights = sum(weight.numel() for weight in model.parameters())
    print(json.dumps({
        "forces": 1e3 * float(forces.square().mean().sqrt()),
        "energy": 1e3 * float(energy.square().mean().sqrt()),
        "weights": weights, "ms_per_step": 1e3 * seconds / n_steps,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
