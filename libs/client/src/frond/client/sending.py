"""What makes jobs and sends them images, as methods of :class:`frond.client.Client`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import httpx

from frond.client.connection import Connection
from frond.client.errors import FrondClientError
from frond.client.http import checked, object_of
from frond.client.transfer import (
    Journal,
    LocalFile,
    Meter,
    OnProgress,
    Reading,
    Stopped,
    in_threads,
    local_files,
)

Shadow = Mapping[str, Any] | Literal["none"] | None


class Sending(Connection):
    """Jobs and their images; see :class:`frond.client.Client`."""

    def __init__(
        self,
        api_url: str | None,
        api_key: str | None,
        *,
        at_once: int,
        journal_dir: Path | None,
        transport: httpx.BaseTransport | None,
        sleep: Callable[[float], None],
    ) -> None:
        super().__init__(
            api_url, api_key, connections=at_once + 4, transport=transport, sleep=sleep
        )
        self.at_once = at_once
        self._journal_dir = journal_dir

    def create_job(
        self,
        job_id: str | None = None,
        *,
        model: str | None = None,
        thresholds: Mapping[str, float] | None = None,
        webhook_url: str | None = None,
        email: str | None = None,
        size: int | None = None,
        shadow: Shadow = None,
    ) -> dict[str, Any]:
        """Begin a job. The same job id with the same settings is the same job.

        Args:
            model: ``name``, ``name@alias`` or ``name@digest``; None: the default model.
            thresholds: ``score``, ``nms_iou``, ``merge_iou``; what is left out is the model's.
            size: how many images it will have, where that is known; then it needs no sealing.
            shadow: ``model`` and ``share`` of a version that runs beside it, or ``none``; None: the
                one that stands in the registry, for jobs of production.
        """
        body: dict[str, Any] = {
            "job_id": job_id, "model": model, "webhook_url": webhook_url, "email": email,
            "size": size, "thresholds": dict(thresholds) if thresholds else None,
        }  # fmt: skip
        if shadow is not None:
            # a service from before would refuse the field
            body["shadow"] = shadow if shadow == "none" else dict(shadow)
        return self._json("POST", "/jobs", body)

    def upload(
        self,
        files: Sequence[str | Path],
        job_id: str | None = None,
        *,
        model: str | None = None,
        thresholds: Mapping[str, float] | None = None,
        webhook_url: str | None = None,
        email: str | None = None,
        shadow: Shadow = None,
        progress: OnProgress | None = None,
        began: Callable[[str], None] | None = None,
        sealed: Callable[[dict[str, Any]], object] | None = None,
    ) -> str:
        """Create a job, send it these files, seal it; returns the job's id.

        Streams from disk, several files at once. Interrupted, it goes on where it stopped when it
        is called again with the same ``job_id``: files that the service has are not sent again, and
        keep their names also beside more files. Called once more after its end, it changes nothing.

        Args:
            progress: called as bytes go out and files are done; from other threads, one at a time.
            began: called with the job's id before the first byte is sent.
            sealed: called with where the job stands once it has all of them; a key that may submit
                and not read learns it here alone.
        """
        found = local_files(files)
        job = self.create_job(
            job_id,
            model=model,
            thresholds=thresholds,
            webhook_url=webhook_url,
            email=email,
            shadow=shadow,
        )
        job_id = str(job["job_id"])
        if began is not None:
            began(job_id)
        journal = Journal(self.api_url, job_id, job.get("created"), self._journal_dir)
        found = journal.named(found)
        there = self._listed(job_id, {f.name for f in found if journal.has(f)})
        meter, stop = Meter(found, progress), threading.Event()
        rest = []
        for file in found:
            if file.name in there:
                meter.add(files=1, size=file.size)
            else:
                rest.append(file)

        def send(file: LocalFile) -> None:
            self.put_image(job_id, file, meter, stop)
            journal.add(file)
            meter.add(files=1)

        # the largest first, so that none is left for the end
        in_threads(send, sorted(rest, key=lambda f: -f.size), self.at_once, stop)
        stands = self.seal(job_id)
        if sealed is not None:
            sealed(stands)
        return job_id

    def changed_since(self, job: Mapping[str, Any], files: Sequence[LocalFile]) -> list[LocalFile]:
        """Those of these files that were sent to this job from here, and look otherwise now.

        Args:
            job: as ``status`` tells it.
        """
        journal = Journal(self.api_url, job["job_id"], job.get("created"), self._journal_dir)
        return [f for f in files if journal.differs(f)]

    def _listed(self, job_id: str, names: Collection[str]) -> set[str]:
        """Those of these names that the service lists among the job's images just now.

        What it had once it may have lost since, and a job without it would be sealed short. Its
        list may lag behind: to send an image again changes nothing.
        """
        found: set[str] = set()
        try:
            for image in self.images(job_id) if names else ():
                if image["name"] in names:
                    found.add(image["name"])
                if len(found) == len(names):
                    break
        except FrondClientError as e:
            # a key may submit and not read
            if e.status != 403:
                raise
        return found

    def put_image(
        self,
        job_id: str,
        file: LocalFile,
        meter: Meter | None = None,
        stop: threading.Event | None = None,
    ) -> dict[str, Any]:
        """Add one image to an open job. Doing so again with the same bytes changes nothing.

        Raises:
            Stopped: ``stop`` was set before all of it was sent.
        """
        counted = meter or Meter([file], None)
        stop = stop or threading.Event()
        url = f"{self.api_url}/jobs/{quote(job_id)}/images/{quote(file.name)}"

        def once() -> dict[str, Any]:
            # also where nobody answers, and nothing of it is read
            if stop.is_set():
                raise Stopped
            body = Reading(file, counted, stop)
            headers = {
                "content-type": "application/octet-stream",
                "content-length": str(file.size),
            }
            try:
                return object_of(checked(self._http.put(url, content=body, headers=headers)))
            except BaseException:
                body.take_back()
                raise

        try:
            return self._patiently(once)
        except FrondClientError as e:
            e.detail = f"{file.name}: {e.detail}"
            raise

    def start_job(self, s3_url: str, **wish: Any) -> dict[str, Any]:
        """Begin a job with an object, or all rasters under a prefix: ``s3://bucket/key``.

        ``wish``: job_id, model, thresholds, webhook_url, email, shadow.
        """
        return self._json("POST", "/start-job", {"s3_url": s3_url, **wish})

    def add_objects(self, job_id: str, images: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """Add images that are in the object store already to an open job, at most 10,000 at once.

        Args:
            images: ``image`` (s3://bucket/key.tif) of each, and ``name`` where it has one.
        """
        body = {"images": [dict(i) for i in images]}
        return list(self._json("POST", f"/jobs/{quote(job_id)}/images", body)["images"])

    def seal(self, job_id: str) -> dict[str, Any]:
        """No more images will be added."""
        return self._json("POST", f"/jobs/{quote(job_id)}/seal", {})

    def images(
        self, job_id: str, status: str | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """A job's images by name, page by page."""
        query = {"status": status} if status else {}
        return self._pages(f"/jobs/{quote(job_id)}/images", "images", query, limit)
