"""Programs, each started by `python -m experiments.NAME`. What builds, trains and records lies in the folders below."""
