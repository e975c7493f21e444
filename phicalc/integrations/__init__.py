"""Other programs that use our energies and forces, one module for each of them.

`ipi` speaks the socket protocol of i-PI, `lammps` gives LAMMPS its forces. Only the command line
imports these modules.
"""
