"""Detections as columns; merging across window borders as a function of the set."""

from frond.merge.merge import merge
from frond.merge.table import CUT, TOUCHES_BAND, Detections, from_ipc, own, to_ipc, warm_up
from frond.merge.windows import assemble

__all__ = [
    "CUT",
    "TOUCHES_BAND",
    "Detections",
    "assemble",
    "from_ipc",
    "merge",
    "own",
    "to_ipc",
    "warm_up",
]
