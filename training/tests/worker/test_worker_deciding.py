"""Who may change a training run, to what, and what a process's end means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from frond.contracts.reasons import Reason
from frond.contracts.training import TrainingOverrides, TrainingRun, TrainingStatus
from frond.training import tracking
from frond.training.config import Config
from frond.training.worker import deciding, trainer
from frond.training.worker.deciding import CANCELLED, Ending, Progress
from frond.training.worker.settings import TrainingSettings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
S = TrainingStatus


def a_run(**more: Any) -> TrainingRun:
    told = {"training_id": "a" * 32, "model": "palm-detector", "recipe": "palm", "requested": NOW}
    return TrainingRun.model_validate({**told, **more})


def taken(run: TrainingRun, me: str = "me", *, abandoned: bool = False) -> TrainingRun | None:
    return deciding.taken(run, me, LATER, abandoned=abandoned, attempts=3)


def mine() -> TrainingRun:
    run = taken(a_run())
    assert run is not None
    return run


def test_a_run_is_taken_by_one() -> None:
    """Who waits is taken; who runs only from a worker that is silent; who has ended never."""
    run = mine()
    assert (run.status, run.worker, run.attempts) == (S.RUNNING, "me", 1)
    assert run.started == run.updated == LATER
    assert taken(run, "other") is None
    theirs = taken(run, "other", abandoned=True)
    assert theirs is not None and (theirs.worker, theirs.attempts) == ("other", 2)
    for status in (S.SUCCEEDED, S.FAILED, S.CANCELLED):
        assert taken(a_run(status=status), abandoned=True) is None


def test_what_kills_its_workers_ends() -> None:
    """After three of them a run has failed; one that was handed back did not count."""
    run = mine()
    for _ in range(5):
        back = deciding.released(run, run, NOW)
        assert back is not None and (back.status, back.worker) == (S.QUEUED, None)
        run = taken(back) or back
        assert run.status is S.RUNNING and run.attempts == 1
    for n in range(2):
        run = taken(run, f"w{n}", abandoned=True) or run
        assert run.status is S.RUNNING
    last = taken(run, "w9", abandoned=True)
    assert last is not None and (last.status, last.reason) == (S.FAILED, Reason.TRAINING_FAILED)
    assert last.ended == LATER and "3 workers died" in (last.detail or "")


def test_a_cancelled_run_is_not_begun_again() -> None:
    """Its worker has died, or is asked to end: cancelled either way."""
    run = mine().model_copy(update={"cancelled_by": "somebody"})
    for ended in (taken(run, "other", abandoned=True), deciding.released(run, run, NOW)):
        assert ended is not None and ended.status is S.CANCELLED and ended.ended is not None
    assert taken(run, "other") is None


def test_a_zombie_says_nothing() -> None:
    """What another worker has, what was handed back and what has ended is nobody else's to change;
    nor is what the worker itself took up a second time."""
    first = mine()
    done = Ending(S.SUCCEEDED)
    for now in (
        taken(first, "other", abandoned=True), deciding.released(first, first, NOW),
        deciding.ended(first, first, CANCELLED, NOW), taken(first, "me"),
    ):  # fmt: skip
        assert now is not None and not deciding.holds(now, first)
        assert deciding.told(now, first, Progress(3, 4), NOW) is None
        assert deciding.ended(now, first, done, NOW) is None
        assert deciding.released(now, first, NOW) is None


def test_progress_is_kept() -> None:
    """A process that says nothing is alive all the same; nothing it said is lost."""
    run = mine()
    run = deciding.told(run, run, Progress(3, 9, {"loss": 0.5}), NOW) or run
    assert (run.step, run.steps, run.metrics) == (3, 9, {"loss": 0.5})
    after = deciding.told(run, run, Progress(), LATER)
    assert after == run.model_copy(update={"updated": LATER})
    ended = deciding.ended(run, run, deciding.failed("no\x1bdisk"), LATER)
    assert ended is not None and ended.metrics == {"loss": 0.5} and ended.detail == "no\\x1bdisk"


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        (b'{"step": 3, "steps": 9, "metrics": {"loss": 0.5}}', Progress(3, 9, {"loss": 0.5})),
        (b'{"step": 1}\n{"step": 2}\n{"st', Progress(2)),
        (b'{\n "step": 4\n}\n', Progress(4)),
        (b'{"step": true, "steps": -1, "metrics": {"a": NaN, "b": "x", "c": 1e999, "d": 2}}',
         Progress(None, None, {"d": 2.0})),
        (b'{"step": 1e9, "metrics": [1]}', Progress()),
        (b"", None),
        (b"\xff\n[1]\n", None),
        (b"[" * 100_000, None),
    ],
)  # fmt: skip
def test_a_progress_file_may_hold_anything(text: bytes, progress: Progress | None) -> None:
    """The last whole line counts, and of it what can be stored; the result always can."""
    found = deciding.progress_of(text)
    assert found == progress
    run = mine()
    told = deciding.told(run, run, found or Progress(), NOW)
    assert told is not None and TrainingRun.model_validate_json(told.model_dump_json()) == told


GOOD = {
    "model": "palm-detector", "digest": "ab" * 32, "version": "2", "alias": "staging",
    "metrics": {"f1": 0.97},
}  # fmt: skip


def test_success_is_a_version() -> None:
    """The last line of stdout says which; its metrics are the run's."""
    ending = deciding.ending_of(a_run(), 0, json.dumps(GOOD).encode(), "")
    assert ending is not None
    assert ending.status is S.SUCCEEDED and ending.metrics == {"f1": 0.97}
    assert ending.result is not None and ending.result.digest == "ab" * 32


@pytest.mark.parametrize(
    ("code", "last", "said", "detail"),
    [
        (1, json.dumps(GOOD), "The disk is full.", "The disk is full."),
        (3, "", "", "exit code 3"),
        (-9, "", "", "SIGKILL"),
        (-99, "", "", "99"),
        (0, "", "", "without saying"),
        (0, "[]", "", "without saying"),
        (0, "{" * 9999, "", "without saying"),
        (0, json.dumps({**GOOD, "digest": "../x"}), "", "without saying"),
        (0, json.dumps({**GOOD, "model": "roofs"}), "", "trains roofs"),
        (0, json.dumps({**GOOD, "alias": "production"}), "", "'production'"),
    ],
)
def test_all_else_is_a_failure_with_a_sentence(
    code: int, last: str, said: str, detail: str
) -> None:
    ending = deciding.ending_of(a_run(), code, last.encode(), said)
    assert ending is not None
    assert (ending.status, ending.reason) == (S.FAILED, Reason.TRAINING_FAILED)
    assert detail in (ending.detail or "") and ending.result is None


def test_an_outage_is_no_end() -> None:
    """Whatever else was said: what is trained waits for the store."""
    for last in (b"", json.dumps(GOOD).encode()):
        assert deciding.ending_of(a_run(), deciding.AWAY, last, "The store is away.") is None


def test_the_command() -> None:
    """What was asked for, and nothing else; ``palm-night`` is a config of ``palm``."""
    words = deciding.command(
        a_run(recipe="palm-night", overrides=TrainingOverrides(minutes=1.5, steps=9, seed=0)),
        ("trainer", "--x"), Path("/c/palm-night.yaml"), Path("/d"), Path("/o"), resume=True,
        track="file:///t",
    )  # fmt: skip
    assert words == [
        "trainer", "--x", "palm", "--config", "/c/palm-night.yaml", "--data", "/d", "--run", "/o",
        "--out", "/o/model", "--push", "staging", "--progress-file", "/o/progress", "--minutes", "1.5",
        "--steps", "9", "--seed", "0", "--track", "file:///t", "--resume", "--or-anew",
    ]  # fmt: skip
    sly = a_run().model_copy(update={"alias": "production"})
    with pytest.raises(ValueError, match="production"):
        deciding.command(sly, ("x",), Path(), Path(), Path(), resume=False)


def test_what_is_tracked_outlives_its_run(tmp_path: Path) -> None:
    """Where neither worker nor config say where, MLflow's store is in the folder of all runs: that of
    the run goes when it has ended."""
    run = a_run()
    folder = tmp_path / run.training_id
    words = deciding.command(run, (), Path("/c"), Path("/d"), folder, resume=False)
    told = dict(zip(words[1::2], words[2::2], strict=True))
    config = Config(
        name="m", description="m", steps=1, batch=1, rate=1, run=Path(told["--run"]),
        out=Path(told["--out"]),
    )  # fmt: skip
    store = tracking._store(config)
    assert store == tmp_path
    (store / "mlflow.db").touch()
    (config.run_folder / "prepared").mkdir(parents=True)
    trainer._clear(tmp_path, run.training_id)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["logs", "mlflow.db"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"training_on_drift": "palm-detector"},
        {"training_on_drift": "palm-detector:roofs"},
        {"training_on_drift": "a:palm,a:palm-2"},
        {"training_lease_s": 5, "training_progress_s": 2},
        {"training_stop_s": 30},
        {"training_program": "'x"},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainingSettings(**wrong)


def test_settings() -> None:
    """Models that drift has trained, each with its recipe; by default none."""
    assert TrainingSettings().on_drift == {}
    made = TrainingSettings(
        training_on_drift=" a:palm , b:landcover-x,", training_program="x 'y z'"
    )
    assert made.on_drift == {"a": "palm", "b": "landcover-x"} and made.program == ("x", "y z")
    near = TrainingSettings(training_program="training/.venv/bin/python -m x")
    assert near.program == (str(Path("training/.venv/bin/python").absolute()), "-m", "x")
    assert TrainingSettings().program[1:] == ("-m", "frond.training")
    for given, track in (
        ("", ""), ("off", "off"), ("http://mlflow:5000", "http://mlflow:5000"),
        ("sqlite:////srv/x.db", "sqlite:////srv/x.db"),
        ("sqlite:///x.db", f"sqlite:///{Path('x.db').absolute()}"),
    ):  # fmt: skip
        assert TrainingSettings(training_track=given).track == track
