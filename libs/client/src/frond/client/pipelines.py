"""Batch runs from a YAML file.

    inputs: [flights/2026-*/*.tif]     # globs, from this file's folder
    outputs: results/
    model: palm-detector
    version: production                # alias or digest; optional
    thresholds: {score: 0.4}
    seed: 7

A run's job id is made from the file's meaning and its inputs' bytes, and a job pins its model: the
same file over the same inputs is the same job, whose results are fetched again. Where the id is
given, the job of that name may be another run's, and is refused then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from frond.client.client import Client
from frond.client.errors import FrondClientError
from frond.client.transfer import LocalFile, OnProgress, local_files, sha256_of
from frond.contracts.ids import canonical_json, digest
from frond.contracts.jobs import Thresholds

RECORD: Final = "run.json"
_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")


class Pipeline(BaseModel):
    """A pipeline file, checked. ``folder`` is the file's own, from which its paths are meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: list[str] = Field(min_length=1)
    outputs: Path
    model: str | None = None
    version: str | None = None
    thresholds: Thresholds = Thresholds()
    seed: int = Field(
        default=0, description="part of the run's identity; no stage draws a random number today"
    )
    artifacts: list[str] = Field(default_factory=list, description="which results; all when empty")
    webhook_url: str | None = None
    email: str | None = None
    job_id: str | None = None
    folder: Path = Field(default=Path(), exclude=True)

    @field_validator("inputs", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @cached_property
    def run(self) -> str:
        """:func:`run_id` with the inputs as they are when it is asked first, which reads all of them."""
        return run_id(self, _sums(local_files(self.files())))

    @property
    def model_ref(self) -> str | None:
        """``name@version``, as jobs take it."""
        if self.version and not self.model:
            raise FrondClientError("The pipeline names a version without a model.")
        return f"{self.model}@{self.version}" if self.version else self.model

    def files(self) -> list[Path]:
        """What the globs match, sorted. Raises FrondClientError where one is none, or matches nothing."""
        found: dict[Path, None] = {}
        for pattern in self.inputs:
            try:
                some = [p for p in sorted(_glob(self.folder, pattern)) if p.is_file()]
            except (ValueError, IndexError, AttributeError):
                # what pathlib raises for a pattern that it cannot take; without a part, and for "./"
                raise FrondClientError(
                    f"inputs: {pattern!r} is no pattern of files. Write one like flights/**/*.tif; "
                    "** stands alone between slashes."
                ) from None
            if not some:
                raise FrondClientError(f"No file matches {pattern} (from {self.folder}).")
            found.update(dict.fromkeys(some))
        return sorted(found)


def _glob(folder: Path, pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_absolute():
        return list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    return list(folder.glob(pattern))


def _sums(files: Sequence[LocalFile]) -> dict[str, str]:
    return {f.name: sha256_of(f.path) for f in files}


def load(path: Path) -> Pipeline:
    """Read a pipeline file. Raises FrondClientError with what is wrong, and where."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FrondClientError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as e:
        raise FrondClientError(f"{path} cannot be read: {e}.") from None
    except yaml.YAMLError as e:
        raise FrondClientError(f"{path} is no YAML: {' '.join(str(e).split())}") from None
    if not isinstance(value, dict):
        raise FrondClientError(f"{path} holds no fields; it needs inputs and outputs at least.")
    try:
        made = Pipeline.model_validate(value)
    except ValidationError as e:
        told = "; ".join(
            f"{'.'.join(str(p) for p in err['loc'])}: {err['msg']}" for err in e.errors()[:5]
        )
        raise FrondClientError(f"{path}: {told}.") from None
    folder = path.resolve().parent
    return made.model_copy(update={"folder": folder, "outputs": folder / made.outputs})


def run_id(spec: Pipeline, sums: Mapping[str, str]) -> str:
    """The id of a run: its settings that can change a byte of its results, and its inputs.

    Args:
        sums: each input's SHA-256 by its name in the job.
    """
    what = {
        "model": spec.model_ref, "seed": spec.seed, "inputs": dict(sums),
        "thresholds": spec.thresholds.model_dump(exclude_none=True),
    }  # fmt: skip
    return "run-" + digest("run", canonical_json(what).decode())[:24]


def start(
    client: Client,
    spec: Pipeline,
    *,
    job_id: str | None = None,
    progress: OnProgress | None = None,
) -> str:
    """Upload the run's inputs, unless its job has them already; returns the job's id.

    Raises:
        FrondClientError: its job ended without results, and its id cannot be used again; or the id
            was given, and is that of another run.
    """
    files = spec.files()
    given = job_id or spec.job_id
    # before anything is sent, also where an id is given: run.json tells it
    run = spec.run
    job = given or run
    try:
        before = client.status(job)
    except FrondClientError as e:
        if e.status != 404:
            raise
    else:
        if before["status"] in ("failed", "dismissed"):
            raise FrondClientError(
                f"This run's job {job} has ended already ({before['status']}). "
                "Give it another name: --job-id."
            )
        if given:
            _require_own(client, spec, before, local_files(files))
        if before["status"] == "successful":
            return job
    return client.upload(
        files, job, model=spec.model_ref,
        thresholds=spec.thresholds.model_dump(exclude_none=True) or None,
        webhook_url=spec.webhook_url, email=spec.email, progress=progress,
    )  # fmt: skip


def _require_own(
    client: Client, spec: Pipeline, job: Mapping[str, Any], files: Sequence[LocalFile]
) -> None:
    """Raise FrondClientError where a job is another run's: exactly where ``run.json`` tells which it
    is, else as far as the service tells, and the notes of what was sent from here."""
    recorded = _recorded(spec, job["job_id"])
    if recorded is not None:
        differs = "" if recorded == spec.run else "other settings or inputs"
    elif job["status"] == "successful":
        differs = _difference(client, spec, job, files)
    else:
        # some may be missing yet; settings, and bytes of the same name, the service compares itself
        there = {o["name"] for o in client.images(job["job_id"])}
        differs = "" if there <= {f.name for f in files} else "other inputs"
    if differs:
        raise FrondClientError(
            f"Job {job['job_id']} ran with {differs}. Give this run another name: --job-id."
        )


def _recorded(spec: Pipeline, job_id: str) -> str | None:
    """Which run the job is, if ``run.json`` tells."""
    try:
        record = json.loads((spec.outputs / RECORD).read_text(encoding="utf-8"))
        return str(record["run"]) if record["job_id"] == job_id else None
    except (OSError, ValueError, KeyError, TypeError):
        # none, of a version before, or not ours
        return None


def _difference(
    client: Client, spec: Pipeline, job: Mapping[str, Any], files: Sequence[LocalFile]
) -> str:
    """What is another run's about a job with results."""
    summary = client.summary(job["job_id"])
    if not _is_model(client, spec.model_ref, summary["model"]):
        return "another model"
    if Thresholds.model_validate(summary["thresholds"]) != spec.thresholds:
        return "other thresholds"
    is_own = sorted(o["name"] for o in summary["images"]) == sorted(f.name for f in files)
    return "" if is_own and not client.changed_since(job, files) else "other inputs"


def _is_model(client: Client, ref: str | None, model: Mapping[str, Any] | None) -> bool:
    """Whether a job's model is what this names; an alias may have pointed at it when the job began."""
    name, _, version = (ref or str(client.models()["default"])).partition("@")
    if model is None or model["name"] != name:
        return False
    if not _DIGEST.fullmatch(version) or str(model["digest"]).startswith(version):
        return True
    # as the registry has it: deadbeef is an alias before it is a digest
    return any(version in m["aliases"] for m in client.models()["models"] if m["name"] == name)


def write_record(
    spec: Pipeline, figures: Mapping[str, Any], artifacts: Sequence[Mapping[str, Any]]
) -> Path:
    """Write ``run.json`` beside the results: what was run, and what came out. No times."""
    record = {
        "job_id": figures["job_id"],
        "run": spec.run,
        "pipeline": spec.model_dump(mode="json", exclude={"outputs"}, exclude_none=True),
        "model": figures["model"],
        "images": figures["images"],
        "detections": figures["detections"],
        "artifacts": {a["name"]: a["sha256"] for a in artifacts},
    }
    path = spec.outputs / RECORD
    path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path
