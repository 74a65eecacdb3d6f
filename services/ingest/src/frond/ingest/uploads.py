"""One multipart upload: parsed as it arrives, streamed into the store, accepted at its end."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Final

from pydantic import BaseModel, ValidationError

from frond.auth import Principal
from frond.contracts import keys
from frond.contracts.errors import FrondError, ObjectMissing
from frond.contracts.ids import canonical_json, digest, parse_s3_uri
from frond.contracts.jobs import JobSpec, Thresholds
from frond.contracts.reasons import Reason
from frond.ingest import desk, intake, names, places, tenancy
from frond.ingest.context import Ingest, age
from frond.ingest.desk import Wish
from frond.ingest.intake import File
from frond.ingest.multipart import FormReader, PartBegan, PartData
from frond.ingest.problems import Refused
from frond.ingest.readmodel import queries
from frond.ingest.rooms import make_room
from frond.ingest.sinks import HashSink, ObjectSink, Sink
from frond.runtime import crash_point, get_logger

FIELDS: Final = ("webhook_url", "model", "job_id", "email", "score")
RETRY: Final = "retry:"
"""What stands before the id of the job whose images a manifest runs again."""
_MAX_FIELD: Final = 8192
_FINISHING: Final = 4
_log = get_logger(__name__)


class Received(BaseModel):
    """What a form held: its fields, and its files under distinct names."""

    fields: dict[str, str]
    files: list[File]

    @property
    def content(self) -> str:
        """A digest of names and bytes: equal for the same files, wherever they lie."""
        marks = sorted((f.name, f.mark) for f in self.files)
        return digest("content", canonical_json(marks).decode())

    @property
    def fingerprint(self) -> str:
        """A digest of the whole request."""
        return digest("upload", self.content, canonical_json(self.fields).decode())

    def wish(self) -> Wish:
        """The fields as a job's settings. Raises Refused."""
        score = self.fields.get("score")
        try:
            return Wish(
                thresholds=Thresholds.model_validate({"score": score} if score else {}),
                **{k: v for k in FIELDS if k != "score" and (v := self.fields.get(k))},
            )
        except ValidationError:
            raise Refused(
                Reason.BAD_REQUEST, f"score {score!r} is no number from 0 to 1.", status=422
            ) from None


class Manifest(BaseModel):
    """A job that came in one upload, stored once: what it consists of."""

    content: str
    upload_id: str
    files: list[File]

    def is_of(self, spec: JobSpec) -> bool:
        """Whether this job may have these files: a retry's are its own tenant's alone."""
        kind, colon, retried = self.upload_id.partition(":")
        return not colon or (kind + colon == RETRY and retried == spec.retry_of)


class Receiver:
    """Takes one form's parts. With ``keep`` false it only hashes, to compare with another."""

    def __init__(self, ingest: Ingest, who: Principal, *, keep: bool = True) -> None:
        self.ingest = ingest
        self.keep = keep
        self.upload_id = f"{tenancy.upload_tag(who)}{secrets.token_hex(12)}"
        self.fields: dict[str, str] = {}
        self._names: list[str] = []
        self._sinks: list[Sink] = []
        self._sums: list[asyncio.Task[str]] = []
        self._finishing: set[asyncio.Task[str]] = set()
        self._slots = asyncio.Semaphore(_FINISHING)
        self._field: str | None = None
        self._value = bytearray()

    async def receive(self, boundary: bytes, body: AsyncIterator[bytes]) -> Received:
        """Read the body to its end. Raises Refused; nothing is left in the store then."""
        form = FormReader(boundary)
        if self.keep:
            await self.ingest.store.put(places.receiving(self.upload_id), b"", "text/plain")
            crash_point("ingest.form-marked")
        try:
            async for piece in body:
                for step in form.feed(piece):
                    if isinstance(step, PartBegan):
                        self._begin(step)
                    elif isinstance(step, PartData):
                        await self._data(step.data)
                    else:
                        await self._end()
            form.finish()
            sums = await asyncio.gather(*self._sums)
        except BaseException:
            await self.forget()
            raise
        return self._received(sums)

    def _begin(self, part: PartBegan) -> None:
        if part.filename is None:
            if part.field not in FIELDS:
                raise Refused(
                    Reason.BAD_REQUEST,
                    f"There is no field {part.field[:100]!r}. Fields are {', '.join(FIELDS)}; "
                    "files carry a filename.",
                    status=422,
                )
            self._field, self._value = part.field, bytearray()
            return
        self._field = None
        if len(self._sinks) >= self.ingest.settings.max_files:
            limit = self.ingest.settings.max_files
            raise Refused(Reason.TOO_MANY, f"A job may have {limit} files here.")
        # a form's empty file input comes as a part without name and bytes
        name = names.display_name(part.filename) if part.filename else ""
        limit = self.ingest.settings.max_file_bytes
        key = places.upload(self.upload_id, len(self._sinks), name or "unnamed")
        self._names.append(name)
        self._sinks.append(
            ObjectSink(self.ingest.store, key, limit) if self.keep else HashSink(limit)
        )

    async def _data(self, data: bytes) -> None:
        if self._field is None:
            await self._sinks[-1].write(data)
            return
        self._value += data
        if len(self._value) > _MAX_FIELD:
            raise Refused(Reason.BAD_REQUEST, f"Field {self._field} is too long.", status=422)

    async def _end(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._value.decode("utf-8", "replace").strip()
            return
        # the next file arrives while this one is being finished
        for done in [t for t in self._finishing if t.done()]:
            self._finishing.remove(done)
            done.result()
        await self._slots.acquire()
        n = len(self._sinks) - 1
        task = asyncio.create_task(self._finish(self._sinks[n], self._names[n]))
        self._sums.append(task)
        self._finishing.add(task)

    async def _finish(self, sink: Sink, name: str) -> str:
        try:
            sha = await sink.whole()
            if name or sink.size:
                await sink.keep()
                crash_point("ingest.file-stored")
            return sha
        finally:
            self._slots.release()

    def _received(self, sums: list[str]) -> Received:
        sent = [
            (n, name or "unnamed", sha)
            for n, (name, sha) in enumerate(zip(self._names, sums, strict=True))
            if name or self._sinks[n].size
        ]
        chosen = names.distinct([(name, sha) for _, name, sha in sent])
        files = [
            File(
                name=distinct, mark=f"sha256:{sha}", size=self._sinks[n].size,
                image=self.ingest.store.uri(places.upload(self.upload_id, n, name)),
            )
            for (n, name, sha), distinct in zip(sent, chosen, strict=True)
            if distinct is not None
        ]  # fmt: skip
        if not files:
            raise Refused(
                Reason.BAD_REQUEST, "The form holds no file: send one or more, in any file field."
            )
        return Received(fields=self.fields, files=files)

    async def forget(self) -> None:
        """Leave nothing of this upload in the store."""
        for task in self._sums:
            task.cancel()
        await asyncio.gather(*self._sums, return_exceptions=True)
        for sink in self._sinks[-_FINISHING - 1 :]:
            await sink.drop()
        if self.keep:
            with contextlib.suppress(FrondError):
                await self.ingest.store.delete_prefix(places.upload_prefix(self.upload_id))
                await self.ingest.store.delete(places.receiving(self.upload_id))


async def accept(
    ingest: Ingest,
    received: Received,
    upload_id: str,
    job_id: str,
    who: Principal,
    traceparent: str,
) -> JobSpec:
    """Make the received files a job, or add them to an open one. The same files twice: one result.

    Raises:
        Refused: CONFLICT or JOB_CLOSED: the job is there and has other files.
        ModelRejected: nobody knows the model.
    """
    wish = received.wish()
    wish.check(ingest.egress)
    await ingest.store.put(places.receiving(upload_id), job_id.encode(), "text/plain")
    crash_point("ingest.form-named")
    spec = await _accept(ingest, received, upload_id, job_id, wish, who, traceparent)
    await ingest.store.delete(places.receiving(upload_id))
    crash_point("ingest.form-unmarked")
    return spec


async def _accept(
    ingest: Ingest,
    received: Received,
    upload_id: str,
    job_id: str,
    wish: Wish,
    who: Principal,
    traceparent: str,
) -> JobSpec:
    await tenancy.require_usable(ingest, job_id, who)
    there = await _exists(ingest, job_id)
    if there and not await ingest.store.exists(places.manifest(job_id)):
        plain = wish.model_copy(update={"job_id": None}) == Wish()
        spec = await (
            desk.spec_of(ingest, job_id) if plain else desk.pin(ingest, job_id, wish, who)
        )
        if not who.sees(spec.tenant):
            # another tenant's, begun since it was asked
            raise tenancy.unusable(job_id)
        await _add(ingest, spec, received, traceparent)
        return spec
    async with tenancy.room_for_job(ingest, job_id, who):
        spec = await desk.pin(ingest, job_id, wish, who)
        return await _begin(ingest, received, upload_id, spec, traceparent)


async def _begin(
    ingest: Ingest, received: Received, upload_id: str, spec: JobSpec, traceparent: str
) -> JobSpec:
    job_id = spec.job_id
    mine = Manifest(content=received.content, upload_id=upload_id, files=received.files)
    stored = Manifest.model_validate_json(
        await ingest.store.put_if_absent(places.manifest(job_id), mine.model_dump_json().encode())
    )
    crash_point("ingest.manifest-stored")
    if stored.content != mine.content:
        raise Refused(Reason.JOB_CLOSED, f"Job {job_id!r} is there already, with other files.")
    await carry_out(ingest, spec, stored, traceparent)
    if stored.upload_id != upload_id:
        await ingest.store.delete_prefix(places.upload_prefix(upload_id))
        crash_point("ingest.copies-deleted")
    return spec


async def carry_out(ingest: Ingest, spec: JobSpec, manifest: Manifest, traceparent: str) -> None:
    """Open, record and publish what a manifest says; may be done again at any time.

    One that is another job's is passed over.
    """
    if not manifest.is_of(spec):
        _log.error("a manifest is not its job's", job_id=spec.job_id, upload_id=manifest.upload_id)
        return
    size = len(manifest.files)
    if await ingest.store.exists(keys.job_completed(spec.job_id)):
        await desk.show(ingest, spec, size)
        return
    await desk.open_for_work(ingest, spec, size)
    events = [intake.uploaded(spec, f, size) for f in manifest.files]
    await intake.record(ingest, events)
    await desk.seal(ingest, spec.job_id, size, traceparent)
    await intake.publish(ingest, events, traceparent)


async def _exists(ingest: Ingest, job_id: str) -> bool:
    if await ingest.store.exists(keys.open_marker(job_id)):
        return True
    row = await queries.job(ingest.db, job_id)
    return row is not None


async def _add(ingest: Ingest, spec: JobSpec, received: Received, traceparent: str) -> None:
    new: list[File] = []
    known: list[tuple[File, File]] = []
    for file in received.files:
        had = await intake.claimed(ingest, spec.job_id, file.name)
        if had is not None and had.mark == file.mark:
            known.append((file, had))
        else:
            new.append(file)
    if new:
        await desk.require_open(ingest, spec.job_id)
        room = await make_room(ingest, spec.job_id, [f.name for f in new])
        try:
            won = await intake.claim(ingest, spec.job_id, new, room)
        finally:
            room.leave()
        await intake.add(ingest, spec, won, traceparent)
    if known:
        # sent again: whoever claimed the names may have died before it recorded the images
        claimed = [had for _, had in known]
        await intake.require_place(ingest, spec.job_id, claimed)
        await intake.add(ingest, spec, claimed, traceparent)
    for file, had in known:
        if file.image == had.image:
            continue
        _, key = parse_s3_uri(file.image)
        with contextlib.suppress(ObjectMissing):
            await ingest.store.delete(key)
            crash_point("ingest.copies-deleted")


async def clear_abandoned(ingest: Ingest) -> int:
    """Remove what forms left whose requests died, unless their job has it; returns how many."""
    count = 0
    async for found in ingest.store.list(keys.RECEIVING):
        parts = found.key.startswith(places.PARTS)
        if parts or age(found) < ingest.settings.abandoned_seconds:
            continue
        upload_id = found.key.removeprefix(keys.RECEIVING)
        with contextlib.suppress(ObjectMissing):
            job_id = (await ingest.store.get(found.key)).decode()
            if not (job_id and await _given(ingest, job_id, upload_id)):
                await ingest.store.delete_prefix(places.upload_prefix(upload_id))
                crash_point("ingest.abandoned-deleted")
            await ingest.store.delete(found.key)
            count += 1
    return count


async def _given(ingest: Ingest, job_id: str, upload_id: str) -> bool:
    """Whether the job has files of this upload."""
    try:
        raw = await ingest.store.get(places.manifest(job_id))
        return Manifest.model_validate_json(raw).upload_id == upload_id
    except ObjectMissing:
        pass
    uri = ingest.store.uri(places.upload_prefix(upload_id))
    async for claim in ingest.store.list(places.claims(job_id)):
        with contextlib.suppress(ObjectMissing):
            if File.model_validate_json(await ingest.store.get(claim.key)).image.startswith(uri):
                return True
    return False
