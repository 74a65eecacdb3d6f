"""The client: Frond's REST service as methods. Blocking; safe to use from several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx

from frond.client.connection import Connection, address
from frond.client.environment import frond_env, setting
from frond.client.errors import FrondClientError
from frond.client.http import Passing, checked, may_be_done, object_of
from frond.client.keys import Keys
from frond.client.registry import ModelRegistry
from frond.client.training import Training
from frond.client.transfer import (
    Journal,
    LocalFile,
    Meter,
    OnProgress,
    Reading,
    Stopped,
    fetch,
    in_threads,
    local_file,
    local_files,
    sha256_of,
)
from frond.client.watching import JobEvent, follow, within

T = TypeVar("T")
Shadow = Mapping[str, Any] | Literal["none"] | None
_READ_WHOLE = 16 << 20


class Client(Connection):
    """Frond's REST service.

    Args:
        api_url: where it is; by default ``FROND_API_URL``, or what ``.frond/env`` says.
        api_key: by default ``FROND_API_KEY``.
        inference_url: where ``predict`` is answered; by default ``FROND_INFERENCE_URL``.
        at_once: files that are uploaded side by side.
        transport: another way to send requests, for tests.
        sleep: what waits between tries, for tests.

    Every method raises FrondClientError with a sentence that tells what is wrong, and NotReachable
    when nobody answers for about half a minute.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        inference_url: str | None = None,
        at_once: int = 4,
        journal_dir: Path | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(
            api_url, api_key, connections=at_once + 4, transport=transport, sleep=sleep
        )
        self.inference_url = inference_url or setting(frond_env(), "FROND_INFERENCE_URL")
        self.at_once = at_once
        self._journal_dir = journal_dir
        self.keys = Keys(self._json)
        """API keys, for admins."""
        self.registry = ModelRegistry(self._http, self.api_url, self._json, self._patiently)
        """Models: looked at, and for admins pushed and promoted."""
        self.training = Training(self._json, self._pages, sleep)
        """Training runs, for admins."""

    # -- jobs ----------------------------------------------------------------------------------

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

    def status(self, job_id: str) -> dict[str, Any]:
        """Where a job stands."""
        return self._json("GET", f"/status/{quote(job_id)}")

    def jobs(self, status: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Jobs, the newest first, at most ``limit`` of them."""
        query = {"status": status} if status else {}
        return list(self._pages("/jobs", "jobs", query, limit))

    def images(
        self, job_id: str, status: str | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """A job's images by name, page by page."""
        query = {"status": status} if status else {}
        return self._pages(f"/jobs/{quote(job_id)}/images", "images", query, limit)

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Stop a job; it ends as ``dismissed``."""
        return self._json("POST", f"/jobs/{quote(job_id)}/cancel")

    def retry(self, job_id: str, reasons: Sequence[str] = ()) -> dict[str, Any]:
        """Run the failed images of an ended job again, as a new job; returns that one.

        Args:
            reasons: only images that failed for one of these; empty: all.
        """
        return self._json("POST", f"/jobs/{quote(job_id)}/retry", {"reasons": list(reasons)})

    def webhooks(self, job_id: str) -> list[dict[str, Any]]:
        """What became of a job's webhooks and e-mails, the oldest first."""
        return list(self._json("GET", f"/jobs/{quote(job_id)}/webhooks")["webhooks"])

    def replay_webhooks(self, job_id: str) -> list[dict[str, Any]]:
        """Have an ended job's webhooks sent once more: same ``webhook-id``, same body.

        Returns the new round; nothing where the job asked for no webhook.

        Raises:
            FrondClientError: 409: it has not ended, or another round is under way, which may last
                for days and is not waited for.
        """
        path = f"/jobs/{quote(job_id)}/webhooks/replay"
        return list(self._json("POST", path, final={409})["webhooks"])

    def ended(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[str]:
        """Ids of the jobs that ended from ``since`` up to, not including, ``until``; newest first.

        Every job that began before ``until`` is looked at: a long one may have begun early.
        """
        query = {"until": until.isoformat()} if until else {}
        for job in self._pages("/jobs", "jobs", query, None):
            ended = job.get("finished") and datetime.fromisoformat(job["finished"])
            if ended and (not since or ended >= since) and (not until or ended < until):
                yield str(job["job_id"])

    def delete(self, job_id: str) -> None:
        """Stop a job if it runs, and delete all of it.

        Raises:
            FrondClientError: 404: there is no such job, and none was deleted by a try of this call
                whose answer was lost.
        """
        url = f"{self.api_url}/jobs/{quote(job_id)}"
        is_lost = False

        def once() -> None:
            nonlocal is_lost
            try:
                response = self._http.delete(url)
                if response.status_code != 404 or not is_lost:
                    checked(response)
            except (httpx.TransportError, Passing) as e:
                is_lost = is_lost or may_be_done(e)
                raise

        self._patiently(once)

    # -- watching ------------------------------------------------------------------------------

    def watch(self, job_id: str) -> Iterator[JobEvent]:
        """Follow a job until it has ended; the last event is ``completed``.

        Server-sent events; where they do not come through (a proxy that holds them back, say),
        the status is asked for every second.
        """
        yield from follow(self._http, self.api_url, job_id, self.status, self._sleep)

    def wait(self, job_id: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait until a job has ended; returns its status.

        Raises:
            FrondClientError: it has not ended after ``timeout`` seconds, give or take a heartbeat.
        """
        for _ in within(self.watch(job_id), job_id, timeout):
            pass
        return self.status(job_id)

    # -- results -------------------------------------------------------------------------------

    def results(self, job_id: str) -> list[dict[str, Any]]:
        """A job's files: name, size, sha256, media_type, url; none until it has ended."""
        return list(self._json("GET", f"/jobs/{quote(job_id)}/results")["results"])

    def download(
        self,
        job_id: str,
        name: str,
        path: str | Path,
        *,
        sha256: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Path:
        """Fetch one result to a local file, which appears when it is whole.

        A download that was interrupted goes on where it stopped (``path`` with ``.part``) where
        ``sha256`` is given; else nothing tells whose part it is, and it begins anew.

        Args:
            name: as ``results`` lists it, or ``images/{image}/{file}``.
            sha256: what the file must be.
            progress: called with the bytes that came in.
        """
        target = Path(path)
        part = target.with_name(target.name + ".part")
        if sha256 is None:
            part.unlink(missing_ok=True)
        url = f"{self.api_url}/jobs/{quote(job_id)}/results/{quote(name)}"
        for attempt in (1, 2):
            self._patiently(lambda: fetch(self._http, url, part, progress))
            if sha256 is None or sha256_of(part) == sha256:
                break
            part.unlink()
            if attempt == 2:
                raise FrondClientError(f"{name} arrived with other bytes than the service told.")
        part.replace(target)
        return target

    def read(self, job_id: str, name: str) -> bytes:
        """One small result, whole."""
        return self._request("GET", f"/jobs/{quote(job_id)}/results/{quote(name)}").content

    def read_object(self, job_id: str, name: str) -> dict[str, Any]:
        """One small result that is a JSON object, or the list of an image's own: ``images/{image}/``."""
        return self._json("GET", f"/jobs/{quote(job_id)}/results/{quote(name)}")

    def summary(self, job_id: str) -> dict[str, Any]:
        """A job's ``summary.json``. Raises FrondClientError where it has not ended."""
        return self.read_object(job_id, "summary.json")

    def notes(self, job_id: str) -> list[dict[str, Any]]:
        """What a user should know of a job's images, the most frequent first: ``note``, ``images`` (how
        many have it) and ``example``. None before it has ended, nor of a summary above 16 MiB."""
        size = {r["name"]: r["size"] for r in self.results(job_id)}.get("summary.json")
        if size is None or size > _READ_WHOLE:
            return []
        # of older versions it has none
        return list(self.summary(job_id).get("notes", ()))

    def models(self) -> dict[str, Any]:
        """The registry: ``default``, and ``models`` with their versions and aliases."""
        return self._json("GET", "/models")

    def predict(
        self,
        path: str | Path,
        *,
        model: str | None = None,
        score: float | None = None,
        gsd_m: float | None = None,
    ) -> dict[str, Any]:
        """Detections in one image, at once, without a job.

        Args:
            gsd_m: ground metres a pixel, in place of what the image says.
        """
        if not self.inference_url:
            raise FrondClientError(
                "FROND_INFERENCE_URL is not set: it says where the inference service answers."
            )
        file = local_file(path)
        asked = {"model": model, "score": score, "gsd_m": gsd_m}
        query = {k: v for k, v in asked.items() if v is not None}
        base = address(self.inference_url, "FROND_INFERENCE_URL")

        def once() -> dict[str, Any]:
            with file.open("rb") as source:
                response = self._http.post(f"{base}/predict", params=query, content=source)
            return object_of(checked(response), "FROND_INFERENCE_URL")

        return self._patiently(once, where=base)
