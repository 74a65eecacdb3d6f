"""What is kept of a run besides its weights: a log of JSON lines always, MLflow where it is there.

MLflow's store is ``mlflow.db`` beside the runs' folders (``training/runs``) unless a tracking URI is told (a server:
``http://…``). A tracker that fails later than at the start costs figures in MLflow, not the run;
nor does one that is away when a run is gone on with.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from frond.contracts.errors import UserError
from frond.training.config import Config, bad
from frond.training.progress import say

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

LOG_FILE: Final = "log.jsonl"
OFF: Final = "off"

_RUN_FILE: Final = "mlflow-run"
_FILE: Final = "sqlite:///"
_FLUSH_S: Final = 5.0


@dataclass(frozen=True)
class Outcome:
    """What is worth keeping: the model's folder, other files, and tags of what they are."""

    model: Path
    files: tuple[Path, ...]
    tags: Mapping[str, str]


class Tracker(Protocol):
    """Keeps a run's parameters, curves and results; a :class:`frond.training.loop.Watcher` too."""

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None: ...

    def validated(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def finished(self, step: int, metrics: Mapping[str, float], came: Outcome) -> None:
        """With the figures of its evaluation."""
        ...

    def ended(self, status: str) -> None:
        """``FINISHED``, ``FAILED`` or ``KILLED`` (it may go on by a resume)."""
        ...


def tracker(kind: str, config: Config, tags: Mapping[str, str], start: int | None) -> Tracker:
    """The tracker of this run.

    Args:
        tags: what identifies the run: digests of config and data, versions.
        start: the step at which it goes on; None: it begins.

    Raises:
        UserError: MLflow was asked for and is not installed, or does not answer where a run begins.
    """
    folder = config.run_folder
    log = Log(folder, start)
    log.write({"began": start or 0, "kind": kind, "config": _plain(config), "tags": dict(tags)})
    if config.track == OFF:
        return log
    if importlib.util.find_spec("mlflow") is None:
        if config.track:
            raise bad(
                "MLflow is not installed here: `make train-env` makes an environment with it."
            )
        return log
    try:
        return Both(log, MLflow(kind, config, tags, resumed=start is not None))
    except UserError as e:
        # where steps are done already, they are worth more than their curves
        if start is None:
            raise
        say(f"{e.detail} What comes is in {folder / LOG_FILE} alone.")
        return log


class Log:
    """``log.jsonl``: a line for each thing that was told. What a resume does again is told again."""

    def __init__(self, folder: Path, start: int | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LOG_FILE
        kept = ""
        if start is not None and self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            # a line that was cut off by a kill is not worth keeping
            kept = "".join(x for x in lines if x.endswith("\n") and _step_of(x) <= start)
        fresh = self._path.with_name(f".{LOG_FILE}.{os.getpid()}")
        fresh.write_text(kept, encoding="utf-8")
        fresh.replace(self._path)

    def write(self, told: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(told, sort_keys=True) + "\n")

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        self.write({"step": step, "steps": steps, **metrics})

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        self.write({"step": step, "validated": dict(metrics)})

    def finished(self, step: int, metrics: Mapping[str, float], came: Outcome) -> None:
        self.write({"step": step, "figures": dict(metrics), "tags": dict(came.tags)})

    def ended(self, status: str) -> None:
        self.write({"ended": status})


class MLflow:
    """A run in MLflow, and a version of the registered model once it is finished.

    One that a killed process left behind in this folder is gone on with by a resume, else ended.
    """

    def __init__(
        self, kind: str, config: Config, tags: Mapping[str, str], *, resumed: bool
    ) -> None:
        self._name = config.name
        root = _store(config)
        uri = config.track or f"{_FILE}{root / 'mlflow.db'}"
        # a server that is down is told at once, not after minutes of retries
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        # nor is anybody told that a model is trained here
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # it tells of every table that it makes
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        note = config.run_folder / _RUN_FILE
        try:
            with _opening(uri):
                self._client: MlflowClient = MlflowClient(tracking_uri=uri)
                self._run = self._id(kind, uri, root, note, resumed)
            # from now on whoever comes next knows of it
            fresh = note.with_name(f".{_RUN_FILE}.{os.getpid()}")
            fresh.write_text(f"{uri}\n{self._run}\n")
            fresh.replace(note)
            for key, value in tags.items():
                self._client.set_tag(self._run, key, value)
            if not resumed:
                for key, value in _plain(config).items():
                    self._client.log_param(self._run, key, str(value)[:500])
        except (MlflowException, OSError) as e:
            words = " ".join(str(e).split())[:300]
            raise bad(f"MLflow at {uri} does not take the run: {words}") from None
        self._held: list[Metric] = []
        self._sent = time.monotonic()
        self._failed = False

    def _id(self, kind: str, uri: str, root: Path, note: Path, resumed: bool) -> str:
        if note.is_file():
            there, _, run = note.read_text().strip().partition("\n")
            if resumed and there == uri:
                self._client.update_run(run, status="RUNNING")
                return run
            _end_former(there, run)
        found = self._client.get_experiment_by_name(self._name)
        if found is None:
            # a server knows where its artifacts are; a file of ours does not
            place = (root / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
            experiment = self._created(place)
        else:
            experiment = found.experiment_id
        name = f"{kind} {time.strftime('%Y-%m-%d %H:%M', time.gmtime())}"
        return str(self._client.create_run(experiment, run_name=name).info.run_id)

    def _created(self, place: str | None) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.create_experiment(self._name, artifact_location=place))
        except MlflowException as e:
            # another worker began to train this model at the same moment
            found = self._client.get_experiment_by_name(self._name)
            if e.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return str(found.experiment_id)

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        self._hold(step, metrics)
        if step >= steps or time.monotonic() - self._sent >= _FLUSH_S:
            self._flush()

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        self._hold(step, {f"val_{k}": v for k, v in metrics.items()})
        self._flush()

    def finished(self, step: int, metrics: Mapping[str, float], came: Outcome) -> None:
        self._hold(step, metrics)
        self._flush()
        with _Lenient(self):
            for key, value in came.tags.items():
                self._client.set_tag(self._run, key, value)
            self._client.log_artifacts(self._run, str(came.model), "model")
            for file in came.files:
                self._client.log_artifact(self._run, str(file))
            self._register(came.tags)

    def _register(self, tags: Mapping[str, str]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._name)
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self._client.get_run(self._run).info.artifact_uri}/model"
        held = self._client.search_model_versions(f"name='{self._name}'")
        # finished twice (killed before the end was told): one version
        if not any(v.run_id == self._run for v in held):
            self._client.create_model_version(self._name, source, run_id=self._run, tags=dict(tags))

    def ended(self, status: str) -> None:
        self._flush()
        with _Lenient(self):
            self._client.set_terminated(self._run, status)

    def _hold(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._held += [Metric(k, float(v), now, step) for k, v in metrics.items()]

    def _flush(self) -> None:
        self._sent = time.monotonic()
        held, self._held = self._held, []
        if held and not self._failed:
            with _Lenient(self):
                self._client.log_batch(self._run, metrics=held)

    def fail(self, error: BaseException) -> None:
        if not self._failed:
            say(f"MLflow takes no more of this run: {' '.join(str(error).split())[:300]}")
        self._failed = True


@contextmanager
def _opening(uri: str) -> Iterator[None]:
    """A store in a file is made, and brought up to date, by who opens it: two at once would fail."""
    if not uri.startswith(_FILE):
        yield
        return
    file = Path(uri.removeprefix(_FILE))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _end_former(uri: str, run: str) -> None:
    """Whoever began this run in our folder was killed if it still runs: the folder is ours alone."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if uri.startswith(_FILE) and not Path(uri.removeprefix(_FILE)).is_file():
        return  # the folder lay elsewhere then; asking would make a store there
    try:
        client = MlflowClient(tracking_uri=uri)
        if client.get_run(run).info.status == "RUNNING":
            client.set_terminated(run, "KILLED")
    except (MlflowException, OSError) as e:
        words = " ".join(str(e).split())[:300]
        say(f"MLflow at {uri} was not told that the run before this one was killed: {words}")


class _Lenient:
    """What MLflow raises is told once, and goes no further."""

    def __init__(self, told: MLflow) -> None:
        self._told = told

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._told.fail(error)
        return True


class Both:
    """Tells two trackers."""

    def __init__(self, one: Tracker, other: Tracker) -> None:
        self._every = (one, other)

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        for t in self._every:
            t.step(step, steps, metrics)

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        for t in self._every:
            t.validated(step, metrics)

    def finished(self, step: int, metrics: Mapping[str, float], came: Outcome) -> None:
        for t in self._every:
            t.finished(step, metrics, came)

    def ended(self, status: str) -> None:
        for t in self._every:
            t.ended(status)


def _store(config: Config) -> Path:
    """The folder of the local store: where the runs lie, or the run whose folder is out of the way."""
    apart = config.out is not None and config.run is None
    return (config.run_folder if apart else config.run_folder.parent).resolve()


def _plain(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _step_of(line: str) -> int:
    try:
        told = json.loads(line)
    except ValueError:
        return 1 << 62
    return int(told.get("step", 0)) if isinstance(told, dict) else 1 << 62
