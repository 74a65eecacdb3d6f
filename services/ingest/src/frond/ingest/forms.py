"""One multipart form: parsed as it arrives, its files streamed into the store."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Collection
from typing import Final, Literal

from pydantic import BaseModel, ValidationError

from frond.auth import Principal
from frond.contracts.errors import FrondError
from frond.contracts.ids import canonical_json, digest
from frond.contracts.jobs import NO_SHADOW, ShadowWish, Thresholds
from frond.contracts.reasons import Reason
from frond.ingest import intake, names, places, tenancy
from frond.ingest.context import Ingest
from frond.ingest.intake import File
from frond.ingest.multipart import FormReader, PartBegan, PartData
from frond.ingest.problems import Refused
from frond.ingest.sinks import HashSink, ObjectSink, Sink
from frond.ingest.wishes import Wish
from frond.runtime import crash_point

FIELDS: Final = ("webhook_url", "model", "job_id", "email", "score", "shadow", "shadow_share")
_NO_TEXT: Final = ("score", "shadow", "shadow_share")
_MAX_FIELD: Final = 8192
_FINISHING: Final = 4


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
                shadow=self._shadow(),
                **{k: v for k in FIELDS if k not in _NO_TEXT and (v := self.fields.get(k))},
            )
        except ValidationError:
            raise Refused(
                Reason.BAD_REQUEST, f"score {score!r} is no number from 0 to 1.", status=422
            ) from None

    def _shadow(self) -> ShadowWish | Literal["none"] | None:
        model, share = self.fields.get("shadow"), self.fields.get("shadow_share")
        if not model and not share:
            return None
        if model == NO_SHADOW and not share:
            return "none"
        try:
            return ShadowWish.model_validate(
                {"model": model or ""} | ({"share": share} if share else {})
            )
        except ValidationError:
            raise Refused(
                Reason.BAD_REQUEST,
                "shadow is a version (name@digest) or none, and shadow_share a number above 0, at "
                "most 1, that comes with a version.",
                status=422,
            ) from None


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
        self._marked_until = 0.0

    async def receive(self, boundary: bytes, body: AsyncIterator[bytes]) -> Received:
        """Read the body to its end. Raises Refused; nothing is left in the store then."""
        form = FormReader(boundary)
        if self.keep:
            await self._mark()
            crash_point("ingest.form-marked")
        try:
            async for piece in body:
                if self.keep and time.monotonic() >= self._marked_until:
                    await self._mark()
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

    async def _mark(self) -> None:
        # as old as the sweeper removes, a form may still be coming in
        self._marked_until = time.monotonic() + self.ingest.settings.abandoned_seconds / 4
        await self.ingest.store.put(places.receiving(self.upload_id), b"", "text/plain")

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

    async def forget(self, spare: Collection[str] = ()) -> None:
        """Leave nothing of this upload in the store, but these objects and the note of them."""
        for task in self._sums:
            task.cancel()
        await asyncio.gather(*self._sums, return_exceptions=True)
        for sink in self._sinks[-_FINISHING - 1 :]:
            await sink.drop()
        if not self.keep:
            return
        store, prefix = self.ingest.store, places.upload_prefix(self.upload_id)
        with contextlib.suppress(FrondError):
            if spare:
                dead = [f.key async for f in store.list(prefix) if f.key not in spare]
                await intake.in_parallel(dead, store.delete)
            else:
                await store.delete_prefix(prefix)
                await store.delete(places.receiving(self.upload_id))
