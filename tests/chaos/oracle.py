"""The ledger outside the system: a journal on disk, synced before each submission."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chaos.jobs import JobPlan


class Oracle:
    """What was submitted, acknowledged, seen on ``completed`` and posted to the webhook.

    Nothing of it is read from the system's own records. The journal is a JSON line for each entry;
    what a submission rests on is on disk before the submission begins.

    Attributes:
        plans: every job whose submission began, by id.
        acknowledged: ids of the jobs whose submission was answered; these must end.
        noted: what was noted, oldest first, each with when (``at``) and what.
    """

    def __init__(self, journal: Path) -> None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        self.journal = journal
        self._file = journal.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self.plans: dict[str, JobPlan] = {}
        self.acknowledged: set[str] = set()
        self.noted: list[dict[str, Any]] = []

    def submitting(self, plan: JobPlan) -> None:
        """On disk when this returns: call it before the first byte of a submission."""
        self.plans[plan.job_id] = plan
        self._write("submitting", sync=True, plan=asdict(plan))

    def acknowledge(self, plan: JobPlan) -> None:
        """The client was told that the whole job was taken."""
        self.acknowledged.add(plan.job_id)
        self._write("acknowledged", sync=True, job_id=plan.job_id)

    def completed(self, job_id: str, ce_id: str, value: str) -> None:
        """A message on the completed topic; ``value`` is the digest of its bytes."""
        self._write("completed", job_id=job_id, ce_id=ce_id, value=value)

    def posted(self, **what: Any) -> None:
        """A delivery that the webhook receiver got. Any thread may call it."""
        self._write("webhook", **what)

    def note(self, what: str, *, sync: bool = False, **more: Any) -> None:
        """Whatever helps to replay a failure: kills, faults; with ``sync``, on disk when this returns."""
        self.noted.append({"at": time.time(), "what": what, **more})
        self._write(what, sync=sync, **more)

    def close(self) -> None:
        self._file.close()

    def _write(self, what: str, *, sync: bool = False, **more: Any) -> None:
        line = json.dumps({"at": round(time.time(), 3), "what": what, **more})
        with self._lock:
            if self._file.closed:
                return
            self._file.write(line + "\n")
            self._file.flush()
            if sync:
                os.fsync(self._file.fileno())
