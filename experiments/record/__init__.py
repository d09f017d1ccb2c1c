"""What a run leaves: metrics, checkpoints, videos, curves, tables. May import: experiments.build, experiments.train."""
