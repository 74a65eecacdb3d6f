"""Named places between two effects where a process can be made to die, for tests of the promise.

A point does nothing unless ``FROND_CRASH_POINTS`` names a folder. Where it does, a token file
``NAME.1``, ``NAME.2``, … in that folder arms the point: whoever passes it takes one token (an atomic
rename into ``fired/``, so that each kills once) and dies of SIGKILL, as it would of a power failure.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

ENVIRONMENT: Final = "FROND_CRASH_POINTS"
FIRED: Final = "fired"

POINTS: Final[dict[str, str]] = {
    # ingest: the REST door
    "ingest.turn-taken": "an Idempotency-Key is taken; nothing of its request is done",
    "ingest.answer-kept": "the answer under an Idempotency-Key is kept; the client has none",
    "ingest.spec-stored": "job.json is there; no marker says that the job is open",
    "ingest.open-marked": "the open marker is there; the job has no row",
    "ingest.row-accepted": "the job's row is committed; the client has no answer",
    "ingest.form-marked": "a form is marked as being received; none of its bytes are taken",
    "ingest.piece-written": "some of an upload's bytes are taken; its object is not there",
    "ingest.part-sent": "the store has a part of an upload; others are to come",
    "ingest.file-stored": "one file of a form is an object; others are not",
    "ingest.form-stored": "a form's objects are stored; no job knows of them",
    "ingest.form-named": "a form that is stored names its job; there is no such job",
    "ingest.manifest-stored": "a form's manifest is stored; none of its images is recorded",
    "ingest.copies-deleted": "files that came twice are deleted; the form is still marked as received",
    "ingest.form-unmarked": "a form is its job's; its sender has no answer",
    "ingest.retry-spec-stored": "a retry's job.json is there; nothing says what it consists of",
    "ingest.retry-manifest-stored": "what a retry consists of is stored; none of it is recorded",
    "ingest.claim-stored": "a name is claimed; others of the same request are not",
    "ingest.name-claimed": "a name is claimed; its raster is not visible yet",
    "ingest.raster-stored": "a raster is stored; it has no record",
    "ingest.parts-begun": "the store awaits a raster in parts; nothing notes that",
    "ingest.parts-noted": "a raster that comes in parts is begun; its sender has no answer",
    "ingest.parts-joined": "a multipart raster is made of its parts; it has no record",
    "ingest.parts-forgotten": "it is in its job and not awaited any more; its sender has no answer",
    "ingest.parts-dropped": "parts of a raster that nobody wants are dropped; it is still awaited",
    "ingest.misfit-deleted": "a raster of another size than was said is deleted; it has its name",
    "ingest.misfit-released": "its name is free; its parts are still awaited",
    "ingest.input-recorded": "an image is recorded; others of the same request are not",
    "ingest.inputs-recorded": "all images of a request are recorded; none is sent",
    "ingest.uploads-sent": "events of images are sent; the client has no answer",
    "ingest.sealing-marked": "the job is marked as being sealed; it has no size",
    "ingest.seal-stored": "the size is stored; it is not sent",
    "ingest.seal-sent": "the seal is sent; the mark of sealing is still there",
    "ingest.sealing-ended": "the mark of sealing is gone; the row has no size",
    "ingest.listing-stored": "the wish to list a prefix is stored; the job is not open",
    "ingest.refusal-recorded": "one listed object that can be no image is recorded; others are not",
    "ingest.refused-recorded": "listed objects that can be no image are recorded; not sent",
    "ingest.refused-sent": "their rejections are sent; the job is not sealed",
    "ingest.listing-done": "the prefix was read to its end and the job is sealed; the row has no size",
    "ingest.cancel-stored": "a cancellation is stored; it is not sent",
    "ingest.cancel-told": "a cancellation is told where jobs end; not where images are read",
    "ingest.cancel-sent": "a cancellation is sent; the client has no answer",
    "ingest.tombstone-stored": "a deleted job has its tombstone, and all of its objects",
    "ingest.uploads-deleted": "a deleted job's uploads are gone; its own objects are there",
    "ingest.objects-deleted": "its own objects are gone; it is still marked as open",
    "ingest.job-deleted": "a deleted job's objects are gone; its status is on the topic",
    "ingest.status-cleared": "a deleted job's status is taken off the topic; it still has rows",
    "ingest.round-taken": "a further round of webhooks is begun; it has no delivery",
    "ingest.replay-stored": "a delivery of it is stored; it has no marker",
    "ingest.replay-marked": "a delivery of it has its marker; its sender has no answer",
    # ingest: the sweeper and the read model
    "ingest.swept": "the sweeper has sent recorded images; not yet the seal",
    "ingest.cancel-swept": "the sweeper has sent a cancellation; nothing notes that",
    "ingest.abandoned-deleted": "what a dead form left is deleted; it is still marked as received",
    "ingest.remembered": "a new database knows deleted and open jobs; it has read no event",
    "ingest.rebuilt": "a new database has the rows of all jobs; nothing notes that",
    "ingest.rows-written": "events are applied to rows; the transaction is open",
    "ingest.rows-committed": "rows and offsets are committed; the reader has not gone on",
    # tiler
    "tiler.open-marked": "the open marker is there; nothing else of the event is",
    "tiler.addresses-stored": "notify.json is there; the image is not looked at",
    "tiler.seal-stored": "the size is stored; the ledger is not told",
    "tiler.cancel-stored": "a cancellation is stored; the ledger is not told",
    "tiler.spec-pinned": "job.json is there; the image has no plan",
    "tiler.spec-completed": "job.json was given an address; the image has no plan",
    "tiler.cog-stored": "a raster that is slow to read is copied; it has no plan",
    "tiler.plan-stored": "the plan is stored; no chunk is sent",
    "tiler.batch-sent": "a batch of chunks is sent; others of the image may not be",
    "tiler.chunks-sent": "all chunks are sent; the event counts as not handled",
    "tiler.handled": "an event is handled; what it gave is not sent",
    "tiler.sent": "what an event gave is sent; its offset cannot be committed yet",
    "tiler.committed": "offsets are committed; nothing of this process knows it",
    "tiler.ledger-told": "the ledger knows of a message that is no event; it is not buried",
    "tiler.buried": "a dead letter is sent; the offset of its message is not committed",
    # inference
    "inference.result-stored": "a chunk's detections are stored; nothing tells of them",
    "inference.handled": "a chunk is handled; its event is not sent",
    "inference.sent": "a chunk's event is sent; the offset cannot be committed yet",
    "inference.committed": "offsets are committed; nothing of this process knows it",
    "inference.buried": "a dead letter is sent; the offset of its message is not committed",
    # aggregator: the image stage
    "aggregator.failure-noted": "a chunk's failure is stored; the table does not count it",
    "aggregator.chunk-counted": "a chunk is in the table; its event is not acknowledged",
    "aggregator.detections-stored": "merged detections are stored; there is no outcome",
    "aggregator.image-coco.json": "this file of an image is written; there is no outcome",
    "aggregator.image-detections.geojson": "this file of an image is written; no outcome",
    "aggregator.image-detections.parquet": "this file of an image is written; no outcome",
    "aggregator.image-stac.json": "this file of an image is written; there is no outcome",
    "aggregator.outcome-stored": "an image's outcome is stored; the job stage is not told",
    "aggregator.imaged-sent": "the job stage is told; the table still has the image",
    "aggregator.image-forgotten": "the table has let go of the image; its event is unread",
    # aggregator: the job stage
    "aggregator.job-marked": "a job's open marker is there; the table does not know the job",
    "aggregator.size-stored": "a job's size is stored; the table does not know it",
    "aggregator.image-counted": "an image is in the table; the job's record is not changed",
    "aggregator.record-changed": "the job's record is changed; its event is unread",
    "aggregator.roster-stored": "closing.json is there; no result is",
    "aggregator.results-coco.json": "this result is written; the job is not completed",
    "aggregator.results-coco-results.json": "this result is written; the job is not completed",
    "aggregator.results-detections.geojson": "this result is written; the job is not completed",
    "aggregator.results-detections.parquet": "this result is written; the job is not completed",
    "aggregator.results-summary.json": "this result is written; the job is not completed",
    "aggregator.roster-deleted": "a roster that does not fit its job is deleted; the job is not begun anew",
    "aggregator.completed-stored": "completed.json is there; nothing of it is sent",
    "aggregator.headers-stored": "the event's headers are stored; it is not sent",
    "aggregator.untold-stored": "it is noted that somebody waits; the completed event is not sent",
    "aggregator.completed-sent": "the completed event is sent; the last status is not",
    "aggregator.status-sent": "the last status is sent; the job is still marked as open",
    "aggregator.marker-deleted": "the open marker is gone; the table still has the job",
    "aggregator.record-dropped": "the job's record is dropped; its images are in the table",
    "aggregator.images-dropped": "images of an ended job are dropped; its event is unread",
    # aggregator: both
    "aggregator.handled": "an event is handled; it is not acknowledged",
    "aggregator.acknowledged": "an event is acknowledged; its offset is not committed",
    "aggregator.committed": "offsets are committed; nothing of this process knows it",
    "aggregator.buried": "a dead letter is sent; its message is not acknowledged",
    "aggregator.snapshot-sent": "a running job's status is sent; nothing notes it",
    "aggregator.redriven": "the reconciler has sent again what was lost; it may send more",
    # notifier
    "notifier.delivery-stored": "a delivery is stored; it has no marker",
    "notifier.marker-stored": "a delivery has its marker; the event is unread",
    "notifier.untold-deleted": "deliveries are promised and the note is gone; the event is unread",
    "notifier.untold-dropped": "the note of a job that was deleted is gone; others are not looked at",
    "notifier.attempt-claimed": "an attempt is claimed; nothing is posted",
    "notifier.posted": "the receiver has answered; nothing notes the answer",
    "notifier.gone-noted": "that a receiver wants no more is noted; its answer is not",
    "notifier.gone-forgotten": "that it is there again is noted; its answer is not",
    "notifier.result-stored": "the answer is noted; the delivery still has its marker",
    "notifier.marker-deleted": "the delivery's marker is gone; its task has not ended",
    "notifier.handled": "an event is handled; its offset cannot be committed yet",
    "notifier.committed": "offsets are committed; nothing of this process knows it",
    "notifier.buried": "a dead letter is sent; the offset of its message is not committed",
}
"""Every point: between which two effects it lies. Its name begins with its service's."""

_folder: Final = Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None


def crash_point(name: str) -> None:
    """Die here if the point is armed. Raises KeyError for a name that is not in ``POINTS``."""
    POINTS[name]
    if _folder is not None:
        _die_if_armed(_folder, name)


def maybe_crash_point(name: str) -> None:
    """As :func:`crash_point`; a name that is no point does nothing.

    For code that serves any service, and so passes points that some of them do not have.
    """
    if name in POINTS:
        crash_point(name)


def _die_if_armed(folder: Path, name: str) -> None:
    fired = folder / FIRED
    for token in sorted(folder.glob(f"{name}.[0-9]*")):
        fired.mkdir(exist_ok=True)
        try:
            token.rename(fired / token.name)
        except FileNotFoundError:
            continue  # another process has taken it
        os.kill(os.getpid(), signal.SIGKILL)
