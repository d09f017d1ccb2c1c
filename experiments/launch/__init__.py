"""Many runs, each a process of `experiments.run`, on engines that exist: this machine's processes, SLURM by submitit.

Imports the program `run`, record, build and the libraries. What starts runs never initialises JAX: checking them is a
process of its own, so that no memory of a GPU is held.
"""
