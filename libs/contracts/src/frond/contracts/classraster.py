"""How many classes a class raster has room for: its pixels are bytes, two of which mean no class."""

from __future__ import annotations

from typing import Final

from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import ModelManifest
from frond.contracts.reasons import Reason

MOST_CLASSES: Final = 254
"""Of a segmentation: 0 is of no class, and 255 means nothing."""


def check_room(manifest: ModelManifest) -> None:
    """Hold a segmentation's classes against what a byte can name.

    Raises:
        ModelRejected: BAD_MODEL: there are more.
    """
    count = len(manifest.classes)
    if count > MOST_CLASSES:
        raise ModelRejected(
            Reason.BAD_MODEL,
            f"The model {manifest.name} has {count} classes; a class raster has room for "
            f"{MOST_CLASSES}.",
        )
