"""Segmentation masks: blended over windows' overlaps into a COG, and traced into polygons."""

from frond.masks.build import Built, build
from frond.masks.codec import MaskFile, WindowMask, check, to_ipc
from frond.masks.table import Polygons
from frond.masks.windows import masks

__all__ = ["Built", "MaskFile", "Polygons", "WindowMask", "build", "check", "masks", "to_ipc"]
