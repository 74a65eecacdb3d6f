"""Where objects lie in the bucket. Every name is derived from an id."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Final

from frond.contracts.ids import digest

_UNSAFE = re.compile(r"[^\w.\- ()+,=@]+", re.UNICODE)
_TAGGED = re.compile(r"[0-9a-f]{10}-")
# what a form puts before a name must fit in besides
_LONGEST: Final = 240

OPEN = "open/"
UPLOADS = "uploads/"
JOBS = "jobs/"
MODELS = "models/"
DELIVERIES = "deliveries/"
UNTOLD = "untold/"
GONE = "gone/"
KEYS = "keys/"
DELETED = "deleted/"
RECEIVING = "receiving/"
TRAININGS = "trainings/"
INTERNAL = (JOBS, MODELS, KEYS, OPEN, DELIVERIES, UNTOLD, GONE, DELETED, RECEIVING, TRAININGS)
"""Prefixes under which the services keep what is nobody's raster; uploads are."""


def safe_name(name: str) -> str:
    """A file's name as the last part of an object key.

    Other scripts stay; path separators, control characters and ``..`` go. Names are cut to 150
    characters and 240 bytes of UTF-8 (stores and disks take 255); whatever was changed leaves a
    hash of the original, so that two names never become one. So does a name that begins as if it
    had such a hash.
    """
    base = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    clean = _UNSAFE.sub("_", base).strip(" .")
    tagged = _TAGGED.match(clean)
    fits = 0 < len(clean) <= 150 and len(clean.encode("utf-8", "replace")) <= _LONGEST
    if clean == name and fits and ".." not in clean and not tagged:
        return clean
    tag = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    stem = _last(clean.replace("..", "_")[-130:], _LONGEST - len(tag) - 1).lstrip(" .") or "image"
    return f"{tag}-{stem}"


def _last(text: str, most: int) -> str:
    """As many of the last characters as fit into so many bytes."""
    return text.encode("utf-8", "replace")[-most:].decode("utf-8", "ignore")


def job_prefix(job_id: str) -> str:
    return f"{JOBS}{job_id}/"


def job_spec(job_id: str) -> str:
    return f"{job_prefix(job_id)}job.json"


def job_notify(job_id: str) -> str:
    """``{webhook_url, email}`` of the first image that came with either: known even where the job
    was given no spec."""
    return f"{job_prefix(job_id)}notify.json"


def job_legend(job_id: str) -> str:
    """What of its model's manifest a job's finds cannot be read without: there before the first of them
    counts, for models may be removed, or pushed again, before the job ends."""
    return f"{job_prefix(job_id)}legend.json"


def job_sealed(job_id: str) -> str:
    return f"{job_prefix(job_id)}sealed.json"


TOLD = b"told"
"""What the mark of a cancelled job holds where whoever made it tells the job stage itself."""


def job_cancelled(job_id: str) -> str:
    return f"{job_prefix(job_id)}cancelled"


def tombstone(job_id: str) -> str:
    """The job was deleted, and its id is used up; outlives the read model."""
    return f"{DELETED}{job_id}"


def job_completed(job_id: str) -> str:
    return f"{job_prefix(job_id)}completed.json"


def job_inputs(job_id: str) -> str:
    """Prefix of what ingest was given for this job, as one small record an image."""
    return f"{job_prefix(job_id)}inputs/"


def job_input_record(job_id: str, image_id: str) -> str:
    """The stored ImageUploaded event: the outbox that a sweeper re-publishes from."""
    return f"{job_inputs(job_id)}{image_id}.json"


def job_refused(job_id: str) -> str:
    """Prefix of what was listed and can be no image: a record each, counted like inputs."""
    return f"{job_prefix(job_id)}refused/"


def job_refused_record(job_id: str, image_id: str) -> str:
    """The stored ImageRejected event."""
    return f"{job_refused(job_id)}{image_id}.json"


def job_upload(job_id: str, name: str) -> str:
    """The raster itself, when it was PUT into a job by name."""
    return f"{UPLOADS}{job_id}/{safe_name(name)}"


def images_prefix(job_id: str) -> str:
    return f"{job_prefix(job_id)}images/"


def image_prefix(job_id: str, image_id: str) -> str:
    return f"{images_prefix(job_id)}{image_id}/"


def image_plan(job_id: str, image_id: str) -> str:
    return f"{image_prefix(job_id, image_id)}plan.json"


def image_outcome(job_id: str, image_id: str) -> str:
    return f"{image_prefix(job_id, image_id)}outcome.json"


def image_detections(job_id: str, image_id: str) -> str:
    return f"{image_prefix(job_id, image_id)}detections.arrow"


CLASS_RASTER = "classes.tif"


def image_classes(job_id: str, image_id: str) -> str:
    """The class of each pixel as a COG, where the model tells classes of pixels."""
    return image_artifact(job_id, image_id, CLASS_RASTER)


def image_polygons(job_id: str, image_id: str) -> str:
    """The regions of one class as polygons, row by row those of ``detections.arrow``."""
    return image_artifact(job_id, image_id, "polygons.arrow")


def image_artifact(job_id: str, image_id: str, name: str) -> str:
    """Per-image artifacts a user may fetch: coco.json, detections.geojson, stac.json, classes.tif and
    so on."""
    return f"{image_prefix(job_id, image_id)}{name}"


def chunks_prefix(job_id: str, image_id: str) -> str:
    return f"{image_prefix(job_id, image_id)}chunks/"


def chunk_result(job_id: str, image_id: str, chunk_id: str) -> str:
    return f"{chunks_prefix(job_id, image_id)}{chunk_id}.arrow"


SHADOW: Final = "shadow/"
"""Below an image: what the job's shadow found, chunk by chunk. No part of any result."""


def shadow_result(job_id: str, image_id: str, chunk_id: str) -> str:
    """The shadow's detections or masks of those windows of a chunk that it has its share in."""
    return f"{image_prefix(job_id, image_id)}{SHADOW}{chunk_id}.arrow"


def shadow_failure(job_id: str, image_id: str, chunk_id: str) -> str:
    """Why there is none (``ShadowFailure``); counts only where there is no result."""
    return f"{image_prefix(job_id, image_id)}{SHADOW}{chunk_id}.failed.json"


def shadow_again(job_id: str, image_id: str, chunk_id: str) -> str:
    """The chunk came back without one once: its worker ended, or lost its partition."""
    return f"{image_prefix(job_id, image_id)}{SHADOW}{chunk_id}.again"


def shadow_death(job_id: str, number: int) -> str:
    """A chunk came back without one once more, as after a worker's end: put once each, from 1."""
    return f"{job_prefix(job_id)}shadow-deaths/{number}"


def cog(job_id: str, image_id: str) -> str:
    """The COG made of a raster whose windows would be slow to read."""
    return f"{image_prefix(job_id, image_id)}cog.tif"


def result(job_id: str, name: str) -> str:
    return f"{job_prefix(job_id)}results/{name}"


def deliveries(job_id: str) -> str:
    """Prefix of a job's deliveries and of who attempts them."""
    return f"{job_prefix(job_id)}deliveries/"


def delivery(job_id: str, delivery_id: str) -> str:
    """How far a webhook or an e-mail of a job has come."""
    return f"{deliveries(job_id)}{delivery_id}.json"


def delivery_attempt(job_id: str, delivery_id: str, attempt: int) -> str:
    """Who makes this attempt: put once, so that two notifiers never make the same one."""
    return f"{deliveries(job_id)}{delivery_id}.attempts/{attempt}"


def delivery_marker(job_id: str, delivery_id: str) -> str:
    """There while a delivery has not ended: the notifier's outbox."""
    return f"{DELIVERIES}{job_id}/{delivery_id}"


def untold_marker(job_id: str) -> str:
    """There from a job's end until what it asks for is promised: somebody wants to be told, and
    the completed event may never arrive."""
    return f"{UNTOLD}{job_id}"


def gone(tenant: str | None, url: str) -> str:
    """There while nobody wants webhooks of this tenant at this address: its receiver said 410."""
    return f"{GONE}{digest('gone', *([] if tenant is None else [tenant]), url)}"


def open_marker(job_id: str) -> str:
    return f"{OPEN}{job_id}"


def model_version(name: str, digest: str) -> str:
    """Prefix of an immutable version: model.onnx, model.yaml and whatever else the folder held."""
    return f"{MODELS}{name}/versions/{digest}/"


def model_alias(name: str, alias: str) -> str:
    return f"{MODELS}{name}/aliases/{alias}.json"


def model_shadow(name: str) -> str:
    """The version that runs beside ``production``, on which share, and who decided so."""
    return f"{MODELS}{name}/shadow.json"


def api_key(key_id: str) -> str:
    """What is kept of an API key: whose it is, what it may do, a hash of its secret."""
    return f"{KEYS}{key_id}.json"


TRAININGS_OPEN = f"{TRAININGS}open/"
TRAININGS_LISTED = f"{TRAININGS}listed/"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 10**15 - 1


def training_run(training_id: str) -> str:
    """A training run: what was asked for, and where it stands."""
    return f"{TRAININGS}runs/{training_id}.json"


def training_open(training_id: str) -> str:
    """There from the request until the run has ended: what workers look for."""
    return f"{TRAININGS_OPEN}{training_id}"


def training_listed(requested: datetime, training_id: str) -> str:
    """A mark for lists: the store names the newest run first."""
    ms = max(0, (requested - _EPOCH) // timedelta(milliseconds=1))
    return f"{TRAININGS_LISTED}{_LAST_MS - ms:015d}-{training_id}"


def training_drift(digest: str) -> str:
    """How long a model's version has drifted, and when a training was last asked for because of it."""
    return f"{TRAININGS}drift/{digest}.json"
