"""Batch runs from a YAML file.

    inputs: [flights/2026-*/*.tif]     # globs, from this file's folder
    outputs: results/
    model: palm-detector
    version: production                # alias or digest; optional
    thresholds: {score: 0.4}
    seed: 7

A run's job id is made from the file's meaning and its inputs' bytes, and a job pins its model: the
same file over the same inputs is the same job, whose results are fetched again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from frond.client.client import Client
from frond.client.errors import FrondClientError
from frond.client.transfer import OnProgress, local_files, sha256_of
from frond.contracts.ids import canonical_json, digest
from frond.contracts.jobs import Thresholds


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
        FrondClientError: its job ended without results, and its id cannot be used again.
    """
    files = spec.files()
    job = job_id or spec.job_id
    if job is None:
        job = run_id(spec, {f.name: sha256_of(f.path) for f in local_files(files)})
    try:
        before = client.status(job)
    except FrondClientError as e:
        if e.status != 404:
            raise
    else:
        if before["status"] == "successful":
            return job
        if before["status"] in ("failed", "dismissed"):
            raise FrondClientError(
                f"This run's job {job} has ended already ({before['status']}). "
                "Give it another name: --job-id."
            )
    return client.upload(
        files, job, model=spec.model_ref,
        thresholds=spec.thresholds.model_dump(exclude_none=True) or None,
        webhook_url=spec.webhook_url, email=spec.email, progress=progress,
    )  # fmt: skip


def write_record(
    spec: Pipeline, figures: Mapping[str, Any], artifacts: Sequence[Mapping[str, Any]]
) -> Path:
    """Write ``run.json`` beside the results: what was run, and what came out. No times."""
    record = {
        "job_id": figures["job_id"],
        "pipeline": spec.model_dump(mode="json", exclude={"outputs"}, exclude_none=True),
        "model": figures["model"],
        "images": figures["images"],
        "detections": figures["detections"],
        "artifacts": {a["name"]: a["sha256"] for a in artifacts},
    }
    path = spec.outputs / "run.json"
    path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path
