"""Programs, each started by `python -m experiments.NAME`. What builds, trains and records lies in the folders below.

Programs may import all of ours; streams import the program `run` and the other folders, record imports build and train,
build imports train, and all three import the rest.
"""
