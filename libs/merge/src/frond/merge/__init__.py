"""Detections as columns; merging across window borders as a function of the set."""
