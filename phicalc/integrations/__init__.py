"""Other programs that use our energies and forces, one module for each of them.

`ipi` speaks the socket protocol of i-PI, `lammps` gives LAMMPS its forces, `dask` spreads many
structures over processes and machines. Nothing else in the package imports these modules.
"""
