"""Many runs, each a process of `experiments.run`, on engines that exist: this machine's processes, SLURM by submitit.

May import the program `run`, record, build and the libraries. What starts runs never initialises JAX: they are checked
in a process of its own, so that no memory of a GPU is held.
"""
