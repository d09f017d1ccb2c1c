"""Streams of tasks on which a network can lose its plasticity, and what is said of methods on them.

May import: experiments.run, experiments.record, experiments.build, experiments.train, configs, and all below these.
"""
