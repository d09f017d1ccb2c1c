"""Replay of one seed as pure functions over a state of arrays. May import: agents.types."""
