# %% [markdown]
# # Your crystal
#
# Rock salt: lattice constant, equation of state, elastic constants and phonons. A CIF of yours is
# read by `ase.io.read("mine.cif")`; the shipped model `rocksalts` knows NaCl, LiF and MgO, and no
# other compound. Elastic constants and phonons need `pip install "phicalc[materials,phonons]"`.

# %%
from ase.build import bulk

from phicalc import PhiCalculator
from phicalc.relax import relax

salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
salt.calc = PhiCalculator("rocksalts", dtype="float64")
found = relax(salt, fmax=0.005, cell=True, smax=50)
print(f"a = {salt.cell.lengths()[0]:.3f} Å, largest stress {found.max_stress:.0f} bar")
print(f"charges {salt.get_charges()[0]:+.3f} and {salt.get_charges()[1]:+.3f} e")

# %% [markdown]
# Experiment has 5.64 Å. The reference of this model is GFN1-xTB, which makes the cell smaller: a
# model is at most as good as what labelled its data.
#
# From the shell: `phicalc relax salt.cif --model rocksalts --cell`.
#
# ## Equation of state

# %%
import matplotlib.pyplot as plt

from phicalc.properties import equation_of_state

state = equation_of_state(salt)
figure, axes = plt.subplots(figsize=(5, 3))
axes.plot(state.volumes, state.energies, "o")
axes.set_xlabel("volume of the cell (Å³)")
axes.set_ylabel("energy (eV)")
print(f"B = {state.bulk_modulus:.1f} GPa, V = {state.volume:.2f} Å³")

# %% [markdown]
# ## Elastic constants
#
# Fitted to the stress under small strains, and averaged over the symmetry of the crystal:

# %%
from phicalc.properties import elastic_constants

elastic = elastic_constants(salt)
c = elastic.stiffness
print(f"C11 {c[0, 0]:.1f}, C12 {c[0, 1]:.1f}, C44 {c[3, 3]:.1f} GPa ({elastic.space_group})")
print(f"B {elastic.bulk_modulus:.1f} GPa, as the equation of state says; stable: {elastic.stable}")

# %% [markdown]
# ## Phonons

# %%
from phicalc.properties import phonons

bands = phonons(salt, supercell=(2, 2, 2), picture="phonons.png")
print(f"lowest {bands.lowest:.2f} THz, {bands.n_displacements} displaced cells")
print(f"at Γ: {bands.bands[0].round(2)} THz")

figure, axes = plt.subplots(figsize=(10, 5))
axes.imshow(plt.imread("phonons.png"))
_ = axes.axis("off")

# %% [markdown]
# Mind what is missing, and what the warning says. In a crystal of ions the longitudinal optical mode
# lies above the transverse ones at Γ, because its motion makes an electric field. That takes Born
# charges and a dielectric constant, which this model does not have. phicalc says so instead of
# inventing them:

# %%
try:
    salt.calc.get_dielectric_tensor(salt)
except Exception as error:
    print(error)

# %% [markdown]
# A model of your own with `head: acks2` and `formal_charges: element` has both
# ([which charges?](../which-charges.md)); none is shipped yet.
#
# ## Before you believe it
#
# Ask for what you need: `phicalc validate rocksalts` compares lattice constants, bulk moduli,
# surfaces and phonons with experiment ([certificates](../certificates.md)), and the
# [page of the model](../models/rocksalts.md) names its limits.
