"""What the aggregator reads from its environment."""

from __future__ import annotations

import os
from typing import Final

from pydantic import Field

from frond.runtime import ServiceSettings

MAX_IMAGE_DETECTIONS: Final = 20_000_000
"""Rows of an image's chunks; merging takes up to 175 bytes each."""


class AggregatorSettings(ServiceSettings):
    """Settings of the aggregator, besides those of every service."""

    reconcile_every_s: float = Field(
        default=20.0, gt=0, description="how often open jobs are looked at"
    )
    stall_s: float = Field(
        default=60.0, gt=0, description="how long a job stands still before it is driven again"
    )
    merge_slots: int = Field(
        default=max(2, os.cpu_count() or 2), ge=1, description="images merged at once"
    )
    max_image_detections: int = Field(
        default=MAX_IMAGE_DETECTIONS,
        ge=1,
        description="of one image, as its windows have them, before they are merged",
    )
    masks_at_once: int = Field(
        default=1, ge=1, description="images whose masks are made at once, each in a process"
    )
    masks_timeout_s: float = Field(
        default=1800.0, gt=0, description="how long the masks of one image may take"
    )
    masks_memory_mb: int = Field(
        default=4096, ge=0,
        description="what a process that makes masks may allocate; 0: as much as there is",
    )  # fmt: skip
    stuck_s: float = Field(
        default=120.0,
        gt=0,
        description="the process exits when its offsets stand still this long behind the end",
    )
