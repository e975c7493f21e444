"""The Φ-Module behind a network of one's own: trained on forces, and a picture of its potential.

    python md_examples/05_phi_module.py
    python md_examples/05_phi_module.py --steps 0 --output start.png

The network below sees pairs within 4 Å and nothing else. C10H2 and C10H3+ differ at one end, and
the charge of the ion spreads over the chain: Poisson's equation on the graph carries it there.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from ase.io import read

from phicalc.electrostatics import PhiModule
from phicalc.graph import collate, edge_vectors, from_ase
from phicalc.nn import envelope

CUTOFF, WIDTH = 4.0, 32


class PairNetwork(torch.nn.Module):
    """Features of an atom from the elements and distances around it, twice over."""

    def __init__(self):
        super().__init__()
        self.element = torch.nn.Embedding(10, WIDTH)
        self.radial = torch.nn.ModuleList(torch.nn.Linear(8, WIDTH) for _ in range(2))
        self.update = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.energy = torch.nn.Linear(WIDTH, 1)
        self.phi = PhiModule(WIDTH, CUTOFF, mode="solve")

    def forward(self, graph):
        """Energies of the structures, and what the Φ-Module found."""
        lengths = edge_vectors(graph).norm(dim=1, keepdim=True)
        waves = torch.sin(torch.arange(1, 9) * torch.pi * lengths / CUTOFF)
        features = self.element(graph.atomic_numbers)
        for radial, update in zip(self.radial, self.update, strict=True):
            messages = radial(waves * envelope(lengths / CUTOFF)) * features[graph.edge_index[1]]
            gathered = torch.zeros_like(features).index_add(0, graph.edge_index[0], messages)
            features = features + torch.nn.functional.silu(update(gathered))
        atomic = self.energy(features).squeeze(1)
        found = self.phi(features, graph)
        return found.energy.index_add(0, graph.batch, atomic), found


def force_error(network, frames, training):
    """Mean length of the errors of the forces, in eV/Å."""
    graph = collate([from_ase(atoms, CUTOFF) for atoms in frames])
    graph = graph._replace(positions=graph.positions.requires_grad_())
    energy = network(graph)[0].sum()
    (slope,) = torch.autograd.grad(energy, graph.positions, create_graph=training)
    wanted = torch.cat([torch.tensor(atoms.get_forces()) for atoms in frames])
    return (slope + wanted).norm(dim=1).mean()


def draw(network, atoms, path):
    """Charges and potential along the chain."""
    with torch.no_grad():
        found = network(from_ase(atoms, CUTOFF))[1]
    figure, axes = plt.subplots(2, 1, figsize=(7, 4.5), layout="constrained")
    for ax, values, title in zip(
        axes, (found.potential, found.charges), ("potential φ (eV/e)", "charge ρ (e)"), strict=True
    ):
        limit = float(values.abs().max())
        x, y, _ = (atoms.positions @ atoms.get_moments_of_inertia(vectors=True)[1].T).T
        dots = ax.scatter(x, y, c=values, s=160, cmap="coolwarm", vmin=-limit, vmax=limit)
        ax.set(title=f"{atoms.get_chemical_formula()}: {title}", ylim=(-2, 2), aspect="equal")
        figure.colorbar(dots, ax=ax)
    axes[-1].set_xlabel("Å")
    figure.savefig(path, format="png")


def main():
    """Train, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="steps of training")
    parser.add_argument("--output", default="phi.png", help="picture")
    arguments = parser.parse_args()

    frames = read(Path(__file__).with_name("xtb_carbon_chains.extxyz"), ":")
    train = [atoms for atoms in frames if atoms.info["split"] == "train"]
    valid = [atoms for atoms in frames if atoms.info["split"] == "val"]
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    network = PairNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    print(f"error of the forces before: {force_error(network, valid, False):.3f} eV/Å")
    for step in range(arguments.steps):
        optimizer.zero_grad()
        batch = [train[(8 * step + i) % len(train)] for i in range(8)]
        force_error(network, batch, True).backward()
        optimizer.step()
    print(f"error of the forces after:  {force_error(network, valid, False):.3f} eV/Å")
    ion = next(atoms for atoms in valid if atoms.info["charge"] == 1)
    draw(network, ion, arguments.output)
    print(f"picture: {arguments.output}")


if __name__ == "__main__":
    main()
