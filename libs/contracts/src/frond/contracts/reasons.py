"""Reason codes: why an image, a request or an event was turned down.

A code never changes its meaning and is never reused; new codes may be added.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why something was turned down. The value is what travels in events and answers."""

    # the raster
    NOT_A_RASTER = "not-a-raster"
    """The bytes are no image format that Frond reads."""
    DRIVER_NOT_ALLOWED = "driver-not-allowed"
    """A format that could reach other files or hosts (VRT and its like)."""
    EMPTY_FILE = "empty-file"
    TRUNCATED = "truncated"
    """The header is whole, pixels are missing or damaged."""
    CORRUPT = "corrupt"
    """The header itself contradicts itself."""
    TOO_LARGE = "too-large"
    """More pixels, bytes or bands than the limits allow, a decompression bomb for example."""
    UNSUPPORTED_DTYPE = "unsupported-dtype"
    MISSING_BANDS = "missing-bands"
    """The model asks for bands that the raster does not have."""
    BAD_GEOREFERENCE = "bad-georeference"
    READ_TIMEOUT = "read-timeout"
    READER_DIED = "reader-died"
    OBJECT_MISSING = "object-missing"
    OBJECT_CHANGED = "object-changed"
    """The object was replaced after its windows had been planned."""
    # the request or event
    BAD_REQUEST = "bad-request"
    BAD_JOB_ID = "bad-job-id"
    BAD_IMAGE_URI = "bad-image-uri"
    BUCKET_NOT_ALLOWED = "bucket-not-allowed"
    JOB_CLOSED = "job-closed"
    """The job is sealed, completed or dismissed and takes no more images."""
    TOO_MANY = "too-many"
    """More images, windows or jobs than the limits allow."""
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    """The key or token is good, and not for this."""
    RATE_LIMITED = "rate-limited"
    """More requests or bytes a second than a key may send."""
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    UNAVAILABLE = "unavailable"
    # the model
    UNKNOWN_MODEL = "unknown-model"
    BAD_MODEL = "bad-model"
    # a training run
    UNKNOWN_RECIPE = "unknown-recipe"
    """The worker has no config of that name."""
    TRAINING_FAILED = "training-failed"
    """It ended without a version: an error, too little time, or a process that was killed."""
    # the run
    INFERENCE_FAILED = "inference-failed"
    MASKS_FAILED = "masks-failed"
    """An image's class map takes more time or memory than it may."""
    DISMISSED = "dismissed"
    INTERNAL = "internal"
    """Our own fault: it is in the logs under the trace id."""
