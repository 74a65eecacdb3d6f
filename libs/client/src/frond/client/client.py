"""The client: Frond's REST service as methods. Blocking; safe to use from several threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from frond.client.connection import address
from frond.client.environment import frond_env, setting
from frond.client.errors import FrondClientError
from frond.client.http import Passing, checked, may_be_done, object_of
from frond.client.keys import Keys
from frond.client.registry import ModelRegistry
from frond.client.sending import Sending
from frond.client.training import Training
from frond.client.transfer import fetch, local_file, sha256_of
from frond.client.watching import JobEvent, follow, within

T = TypeVar("T")
_READ_WHOLE = 16 << 20


class Client(Sending):
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
            api_url,
            api_key,
            at_once=at_once,
            journal_dir=journal_dir,
            transport=transport,
            sleep=sleep,
        )
        self.inference_url = inference_url or setting(frond_env(), "FROND_INFERENCE_URL")
        self.keys = Keys(self._json)
        """API keys, for admins."""
        self.registry = ModelRegistry(self._http, self.api_url, self._json, self._patiently)
        """Models: looked at, and for admins pushed and promoted."""
        self.training = Training(self._json, self._pages, sleep)
        """Training runs, for admins."""

    # -- jobs ----------------------------------------------------------------------------------

    def status(self, job_id: str) -> dict[str, Any]:
        """Where a job stands."""
        return self._json("GET", f"/status/{quote(job_id)}")

    def jobs(self, status: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Jobs, the newest first, at most ``limit`` of them."""
        return list(self._pages("/jobs", "jobs", {"status": status or None}, limit))

    def each_job(self, status: str | None = None) -> Iterator[dict[str, Any]]:
        """All jobs, the newest first, page by page as they are taken."""
        return self._pages("/jobs", "jobs", {"status": status or None}, None)

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
