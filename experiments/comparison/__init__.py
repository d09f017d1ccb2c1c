"""Methods side by side: what is read of their runs, tables and figures of it, and the tuning that comes before.

May import experiments.launch, the program `run`, record, build and the libraries. Like all that starts runs, it never
initialises JAX.
"""
