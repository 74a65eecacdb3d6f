"""Ingest's metrics, one list."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

RECEIVED: Final = Counter("frond_ingest_images_total", "Images recorded for a job")
SWEPT: Final = Counter("frond_ingest_swept_total", "Events sent by the sweeper")
EVENTS: Final = Counter("frond_ingest_applied_total", "Events applied to the read model")
