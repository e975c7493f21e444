"""The labels that a structure can carry: quantities to train on and to compare with."""

#: Labels that can be trained on and evaluated, in the order of reports.
LABELS = (
    "energy", "forces", "stress", "charges", "dipole", "polarizability", "born_charges",
)  # fmt: skip
