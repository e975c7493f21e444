# %% [markdown]
# # Ions in water
#
# A sodium or chloride ion and its first molecules of water, beside the method that labelled the
# training data, and then the point where the model stops being right. The model is `organics`: it
# was trained on clusters of ions with up to twelve molecules of solvent, in vacuum. Salt in a box of
# water is another matter; it has a model of its own, `salt-water`, in the last section. The
# comparison with GFN2-xTB needs `pip install "phicalc[label]"`.

# %%
import numpy as np
from ase import Atoms
from ase.build import molecule

from phicalc import PhiCalculator

CHARGES = {"Na": 1, "Cl": -1}
CORNERS = [(1, 1, 1), (-1, -1, 1), (-1, 1, -1), (1, -1, -1)]  # of a tetrahedron


def cluster(ion, count):
    """Return an ion with so many molecules of water around it, roughly placed."""
    atoms = Atoms(ion)
    positive = CHARGES[ion] > 0
    for corner in CORNERS[:count]:
        water = molecule("H2O")
        water.translate(-water.positions[0])
        water.rotate((0, 0, -1 if positive else 1), corner)  # oxygen or hydrogens towards the ion
        water.translate((2.3 if positive else 3.1) * np.array(corner) / 3**0.5)
        atoms += water
    atoms.info["charge"] = CHARGES[ion]  # of the whole cluster
    atoms.rattle(0.05, seed=count)
    return atoms


calc = PhiCalculator("organics", dtype="float64")
print(cluster("Na", 4).get_chemical_formula())

# %% [markdown]
# ## How strongly is each molecule bound?
#
# Relax clusters of one to four molecules, with the model and with GFN2-xTB, from the same start. What
# the last molecule wins is E(n) − E(n − 1) − E(H₂O).

# %%
from phicalc.labelling import CalculatorSpec
from phicalc.relax import relax

reference = CalculatorSpec("gfn2-xtb")


def minima(attach):
    """Return relaxed clusters by ion and number of molecules, and a relaxed molecule of water."""
    found = {(ion, n): cluster(ion, n) for ion in CHARGES for n in range(5)}
    found["water"] = molecule("H2O")
    found["water"].info["charge"] = 0
    for atoms in found.values():
        attach(atoms)
        if len(atoms) > 1:
            relax(atoms, fmax=0.02, steps=300)
    return found


def attach_model(atoms):
    """Let the model compute."""
    atoms.calc = calc


def attach_reference(atoms):
    """Let GFN2-xTB compute."""
    atoms.calc = reference.make(reference.prepare(atoms))


def energies(found):
    """Return the energy of every structure."""
    return {name: atoms.get_potential_energy() for name, atoms in found.items()}


ours, xtb = minima(attach_model), minima(attach_reference)
e_ours, e_xtb = energies(ours), energies(xtb)


def wins(energy, ion, n):
    """Return what the n-th molecule wins, in eV."""
    return energy[ion, n] - energy[ion, n - 1] - energy["water"]


for ion in CHARGES:
    for n in range(1, 5):
        near = ours[ion, n].get_distances(0, range(1, 3 * n + 1, 3)).mean()
        near_xtb = xtb[ion, n].get_distances(0, range(1, 3 * n + 1, 3)).mean()
        print(
            f"{ion} + {n} H2O: {wins(e_ours, ion, n):6.2f} eV (GFN2-xTB {wins(e_xtb, ion, n):6.2f}),"
            f" {ion}–O {near:.2f} Å ({near_xtb:.2f})"
        )

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 3.4))
for ion, marker in (("Na", "o"), ("Cl", "s")):
    numbers = range(1, 5)
    axes.plot(
        numbers, [wins(e_xtb, ion, n) for n in numbers], marker + "-", label=f"{ion}, GFN2-xTB"
    )
    axes.plot(numbers, [wins(e_ours, ion, n) for n in numbers], marker + "--", mfc="white",
              label=f"{ion}, organics")  # fmt: skip
axes.set_xlabel("molecules of water")
axes.set_ylabel("won by the last one (eV)")
axes.set_xticks(list(numbers))
_ = axes.legend(frameon=False)

# %% [markdown]
# These are clusters like those of the training, and GFN2-xTB labelled them: the model is at most as
# good. Sodium comes within 0.2 eV; chloride lacks a quarter of an electronvolt with four molecules,
# where hydrogen bonds between them begin to count ([anions are its weakest class](../models/organics.md)).
#
# ## Charges
#
# The ion shares its charge with what touches it, as the Mulliken charges of the training data do:

# %%
for ion in CHARGES:
    shares = [f"{ours[ion, n].get_charges()[0]:+.2f}" for n in range(5)]
    print(f"{ion} with 0 to 4 molecules: {', '.join(shares)} e")

# %% [markdown]
# ## Where it stops being right
#
# Pull a molecule of water away from the sodium ion. The charge equilibration of `organics` lets
# charge flow over any distance at no cost ([which charges?](../which-charges.md)), so that water takes
# a share of the ion's charge even where they no longer touch. The charge of each fragment can be held
# fixed: `fragments` numbers the parts, `fragment_charges` says what they carry.

# %%
from phicalc.units import COULOMB_CONSTANT

distances = np.array([2.0, 2.2, 2.4, 2.7, 3.0, 3.5, 4, 5, 6, 8, 10, 14])


def pulled(distance, fragments=False):
    """Return Na+ and a molecule of water that far away, oxygen first."""
    water = ours["water"].copy()
    water.translate(-water.positions[0])
    water.rotate((0, 0, -1), (1, 0, 0))
    water.translate((distance, 0, 0))
    pair = Atoms("Na") + water
    pair.info["charge"] = 1
    if fragments:
        pair.arrays["fragments"] = np.array([0, 1, 1, 1])
        pair.info["fragment_charges"] = [1.0, 0.0]
    return pair


def curve(**options):
    """Return energies over the distances, from that of the parts, and charges of sodium."""
    pairs = [pulled(distance, **options) for distance in distances]
    for pair in pairs:
        pair.calc = calc
    parts = e_ours["Na", 0] + e_ours["water"]
    return np.array([(p.get_potential_energy() - parts, p.get_charges()[0]) for p in pairs]).T


curves = {"organics": curve(), "organics, charges of fragments fixed": curve(fragments=True)}
figure, axes = plt.subplots(figsize=(6, 3.4))
for (name, (values, shares)), style in zip(curves.items(), ("C1--", "C0o-"), strict=True):
    axes.plot(distances, values, style, label=name)
    print(f"{name}: {values[-1]:.2f} eV and {shares[-1]:+.2f} e on Na at {distances[-1]:.0f} Å")

# Far away all that is left is a charge in the field of a dipole.
dipole = np.linalg.norm(ours["water"].get_dipole_moment())
far = distances[distances >= 4]
axes.plot(far, -COULOMB_CONSTANT * dipole / far**2, "k-", label="charge and dipole")
axes.axhline(0, color="grey", lw=0.5)
axes.set_xlabel("Na–O distance (Å)")
axes.set_ylabel("energy of the pair (eV)")
_ = axes.legend(frameon=False)

# %% [markdown]
# Held fixed, the charges give the right law far away, a charge and a dipole. But the network was
# trained with charge that flows, and with fixed charges the minimum is half as deep as it should be. So:
# clusters that stay together without fragments, parts that stay apart with them, and the way from one
# to the other with another model.
#
# ## A box of salt water
#
# For the liquid there is another model. `salt-water` has seen one to eight pairs of ions in some sixty
# molecules of water (revPBE0-D3), at constant volume. Here is one pair, for a third of a picosecond:

# %%
from phicalc.md import MDConfig, run_md
from phicalc.structures import water_box

box = water_box(32, density=1.03)
box.symbols[0], box.symbols[48] = "Na", "Cl"  # two oxygens become ions; their hydrogens go
del box[[1, 2, 49, 50]]
box.calc = PhiCalculator("salt-water")
relax(box, fmax=0.5, steps=60)
run_md(
    box,
    MDConfig(temperature=300, steps=600, timestep=0.5, thermostat_time=50, trajectory_interval=20),
    "salt_box",
    overwrite=True,
    progress=False,
)
for ion in CHARGES:
    atom = int(np.flatnonzero(box.symbols == ion)[0])
    near = np.sort(box.get_distances(atom, np.flatnonzero(box.symbols == "O"), mic=True))[:6]
    print(f"{ion}: {box.get_charges()[atom]:+.2f} e; oxygen at", *(f"{r:.2f}" for r in near), "Å")

# %% [markdown]
# Five or six molecules are near sodium, as many near chloride, a good deal farther away. The charges are
# not ±1: the model chose them such that energies and forces of neutral cells are right, in a medium whose
# electrons screen ions (charges of ±1/√ε∞ = ±0.75 e attract each other as they do there). Longer runs,
# and how the ions of a pair part in water: [the page of the model](../models/salt-water.md).
#
# Other salts, or a density that pressure decides, need a model of yours. Labels: periodic frames, with
# ions together and apart, of a method that you trust with liquids, and with stress. The walls:
# `repulsion: zbl` and `inner_envelope` for what the frames do not show. The settings of
# `salt-water` are a start ([labels and training](../use/training.md)); [your own potential](own.md)
# does it all in one go.
