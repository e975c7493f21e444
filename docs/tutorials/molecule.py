# %% [markdown]
# # Your molecule
#
# Relax a molecule, look at its charges and its infrared spectrum, and find out where the model
# stops being right. We take acetic acid; a file of yours (`ase.io.read("mine.xyz")`) will do as
# well if its elements are among H, C, N, O, F, Na, S and Cl.

# %%
from ase.build import molecule

from phicalc import PhiCalculator
from phicalc.relax import relax

atoms = molecule("CH3COOH")
atoms.calc = PhiCalculator("organics", dtype="float64")
found = relax(atoms, fmax=0.005)
print(f"{found.energy:.3f} eV after {found.steps} steps, forces below {found.max_force:.4f} eV/Å")
print(f"C=O {atoms.get_distance(0, 1):.3f} Å, C–O {atoms.get_distance(0, 2):.3f} Å")

# %% [markdown]
# The same from the shell: `phicalc relax acid.xyz --model organics`.
#
# ## Charges and dipole moment
#
# The charges minimize the electrostatic energy of the whole molecule (charge equilibration). They
# were trained on Mulliken charges of GFN2-xTB, the dipole moment on its dipoles.

# %%
import numpy as np

for symbol, charge in zip(atoms.symbols, atoms.get_charges(), strict=True):
    print(f"{symbol:2s} {charge:+.3f} e")
dipole = np.linalg.norm(atoms.get_dipole_moment())
print(f"dipole moment {dipole:.3f} e Å = {dipole / 0.20819:.2f} D")

# %% [markdown]
# Ions: say so, `atoms.info["charge"] = -1`. The total charge is part of the structure, and the
# calculator notices when it changes.

# %%
anion = atoms[[i for i in range(len(atoms)) if i != 3]]  # without the acid's hydrogen
anion.info["charge"] = -1
anion.calc = atoms.calc
print(f"{anion.get_chemical_formula()}: charges sum to {anion.get_charges().sum():+.3f} e")

# %% [markdown]
# ## Vibrations
#
# Frequencies come from differences of forces, intensities from those of the dipole moment.

# %%
import matplotlib.pyplot as plt

from phicalc.properties import vibrations

modes = vibrations(atoms)
wavenumbers = np.linspace(400, 4000, 1200)
width = 15.0  # cm⁻¹
spectrum = sum(
    strength / (1 + ((wavenumbers - place) / width) ** 2)
    for place, strength in zip(modes.frequencies, modes.intensities, strict=True)
)
figure, axes = plt.subplots(figsize=(8, 3))
axes.plot(wavenumbers, spectrum)
axes.set_xlabel("wavenumber (cm⁻¹)")
axes.set_ylabel("absorption (arbitrary)")
axes.invert_xaxis()
strongest = sorted(modes.frequencies[modes.intensities.argsort()[-3:]])
print("strongest bands:", ", ".join(f"{place:.0f}" for place in strongest), "cm⁻¹")

# %% [markdown]
# From the shell: `phicalc vibrations acid_relaxed.extxyz --model organics`.
#
# ## Where it stops being right
#
# A model knows what its training data show it. `organics` turns double bonds far too easily:
# experiment puts the barrier of ethene near 2.8 eV.

# %%
ethene = molecule("C2H4")
ethene.calc = atoms.calc
relax(ethene, fmax=0.01)
flat = ethene.get_potential_energy()
turned = ethene.copy()
half = ethene.positions[:, 2] > ethene.positions[:, 2].mean()  # one CH2 group
turned.calc = atoms.calc
part = turned[half]
part.rotate(90, "z", center=part.positions[part.symbols == "C"][0])
turned.positions[half] = part.positions
print(f"twisted by 90°: {turned.get_potential_energy() - flat:.2f} eV")

# %% [markdown]
# So: geometries, conformers and dynamics of ordinary closed-shell molecules, yes; isomerization,
# reactions, radicals, no. The [page of the model](../models/organics.md) lists its limits, and
# `phicalc validate organics` asks such questions systematically ([certificates](../certificates.md)).
# If yours is a chemistry that no shipped model knows, train
# [your own](own.md): labels of GFN2-xTB cost minutes.
