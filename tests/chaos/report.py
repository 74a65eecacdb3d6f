"""docs/reliability.md, from the figures of a run."""
