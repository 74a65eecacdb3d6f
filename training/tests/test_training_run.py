"""``frond train palm`` from labels to a model's folder, as a worker calls it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_support import SMALL, labelled_palms

pytest.importorskip("torch", reason="training's own environment has it: make train-test")

from frond.client.errors import FrondClientError
from frond.contracts.errors import StoreUnavailable, UserError
from frond.contracts.jobs import ModelRef
from frond.models import folder_digest
from frond.models.session import ModelSession
from frond.training import cli, publish, run, tracking
from frond.training.config import bad
from frond.training.palm import evaluate
from frond.training.palm.config import Settings

TRAINING = Path(__file__).parents[1]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    labelled_palms(tmp_path / "data")
    return tmp_path / "data"


def settings(data: Path, out: Path, **more: Any) -> Settings:
    return Settings.model_validate({**SMALL, "data": data, "out": out, "track": "off", **more})


def command(file: Path, *options: object) -> list[str]:
    told = [str(o) for o in options]
    return [sys.executable, "-m", "frond.training", "palm", "--config", str(file), *told]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def test_same_seed_same_data_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the same weights and the same model folder, with all figures, however long a window takes;
    one pixel of a label apart, others. The time is kept beside the folder."""
    took = iter((19.9, 21.3))
    monkeypatch.setattr(evaluate, "_milliseconds", lambda _: next(took))
    # what its palms are drawn at
    one = run.full("palm", settings(data, tmp_path / "one", full=True, gsd_m=0.28))
    two = run.full("palm", settings(data, tmp_path / "two", full=True, gsd_m=0.28))
    figures = json.loads((tmp_path / "two.run" / "figures.json").read_text())
    assert figures["told"]["milliseconds a window"] == 21.3
    assert (one["weights"], one["digest"]) == (two["weights"], two["digest"])
    assert one["digest"] == folder_digest(tmp_path / "one")
    assert one["metrics"].keys() >= {"f1_val", "ap50_val", "f1_drawn_scenes"}
    session = ModelSession(tmp_path / "one")
    assert session.manifest.metrics == one["metrics"]
    # at which they have 60 px, those that ship too
    assert session.manifest.gsd_m == pytest.approx(0.14, rel=0.1)
    assert session.manifest.reference is not None
    assert session.manifest.reference.images > 0
    shift_a_label(data)
    assert run.full("palm", settings(data, tmp_path / "two"))["weights"] != one["weights"]


def test_started_again_when_all_was_done(data: Path, tmp_path: Path) -> None:
    """With resume nothing is judged again, and the folder that is pushed is the same version."""
    config = settings(data, tmp_path / "m")
    first = run.full("palm", config)
    before = (tmp_path / "m").stat().st_ino
    assert run.full("palm", config, resume=True) == first
    assert (tmp_path / "m").stat().st_ino == before
    (tmp_path / "m" / "MODEL_CARD.md").write_text("changed")
    assert run.full("palm", config, resume=True)["weights"] == first["weights"]
    assert (tmp_path / "m").stat().st_ino != before


def shift_a_label(data: Path) -> None:
    labels = data / "train" / "labels.json"
    told = json.loads(labels.read_text())
    told["annotations"][0]["bbox"][0] += 8
    labels.write_text(json.dumps(told))


@pytest.mark.parametrize("changed", ["data", "config", "checkpoint", "nothing"])
def test_taken_over_when_something_has_changed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: str
) -> None:
    """Labels that came meanwhile, another rate, or a damaged checkpoint: a worker begins anew, says
    so, and has the weights of a run that began then; a person with --resume is told. Where nothing
    has changed, it goes on."""
    run.full("palm", settings(data, tmp_path / "m"))
    # killed before its end
    (tmp_path / "m.run" / "done.json").unlink()
    more: dict[str, Any] = {}
    if changed == "data":
        shift_a_label(data)
    elif changed == "config":
        more = {"rate": 0.001}
    elif changed == "checkpoint":
        (tmp_path / "m.run" / "checkpoint.pt").write_bytes(b"cut sh")
    config = settings(data, tmp_path / "m", **more)
    if changed != "nothing":
        with pytest.raises(UserError, match="without --resume"):
            run.full("palm", config, resume=True)
    capsys.readouterr()
    again = run.full("palm", config, resume=True, or_anew=True)
    assert ("begins anew" in capsys.readouterr().err) == (changed != "nothing")
    assert again["weights"] == run.full("palm", settings(data, tmp_path / "w", **more))["weights"]
    began = [json.loads(x) for x in (tmp_path / "m.run" / "log.jsonl").read_text().splitlines()]
    assert began[-1] == {"ended": "FINISHED"}


def test_a_tracker_that_is_away_costs_no_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is wrong with the checkpoint lets a worker begin anew."""
    run.full("palm", settings(data, tmp_path / "m"))
    (tmp_path / "m.run" / "done.json").unlink()
    asked: list[object] = []

    def away(*_: object) -> None:
        asked.append(_)
        raise bad("MLflow does not take the run.")

    monkeypatch.setattr(tracking, "tracker", away)
    before = (tmp_path / "m.run" / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError, match="MLflow"):
        run.full("palm", settings(data, tmp_path / "m"), resume=True, or_anew=True)
    assert len(asked) == 1
    assert (tmp_path / "m.run" / "checkpoint.pt").read_bytes() == before


def test_nothing_is_trained_for_a_push_that_cannot_be(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an object store to push to, that is told before the first step."""
    monkeypatch.chdir(tmp_path)
    for name in ("FROND_S3_ENDPOINT", "FROND_S3_ACCESS_KEY", "FROND_S3_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FrondClientError, match="FROND_S3_ENDPOINT"):
        run.full("palm", settings(data, tmp_path / "m"), alias="staging")
    assert not (tmp_path / "m.run").exists()


def test_pushed_when_the_registry_is_back(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage at the push costs nothing: with resume the very folder is pushed that was judged."""
    pushed: list[Path] = []

    def push(folder: Path, *_: object, **__: object) -> ModelRef:
        pushed.append(folder)
        if len(pushed) == 1:
            raise StoreUnavailable("connection refused")
        return ModelRef(name="palm-detector", digest=folder_digest(folder), version="1")

    monkeypatch.setattr(publish, "ready", lambda _: None)
    monkeypatch.setattr(publish, "push", push)
    config, out = settings(data, tmp_path / "m"), tmp_path / "m"
    with pytest.raises(StoreUnavailable):
        run.full("palm", config, alias="staging")
    before, log = out.stat().st_ino, (tmp_path / "m.run" / "log.jsonl").read_text()
    told = run.full("palm", config, resume=True, or_anew=True, alias="staging")
    assert (told["digest"], pushed) == (folder_digest(out), [out, out])
    assert out.stat().st_ino == before
    assert (tmp_path / "m.run" / "log.jsonl").read_text() == log


def test_words_in_the_card_stay(data: Path, tmp_path: Path) -> None:
    """Figures are exchanged between the card's marks; what people wrote around them is kept."""
    out = tmp_path / "model"
    run.full("palm", settings(data, out))
    card = (out / "MODEL_CARD.md").read_text()
    (out / "MODEL_CARD.md").write_text(f"Mine before.\n{card}Mine after.\n")
    run.full("palm", settings(data, out, seed=8))
    again = (out / "MODEL_CARD.md").read_text()
    assert again.startswith("Mine before.\n")
    assert again.endswith("Mine after.\n")
    assert again.count("| centre F1 |") == 1


def test_what_would_be_lost_is_told_before(data: Path, tmp_path: Path) -> None:
    """The model's folder is replaced whole: not one of other things, nor one around run or data."""
    with pytest.raises(UserError, match="would be lost"):
        run.full("palm", settings(data, data))
    out = tmp_path / "m"
    for more in ({"run": out / "run"}, {"run": out}, {"prepared": out / "p"}):
        with pytest.raises(UserError, match="replaced whole"):
            run.full("palm", settings(data, out, **more))
    with pytest.raises(UserError, match="replaced whole"):
        run.full("palm", settings(out / "data", out))
    assert (data / "train" / "labels.json").is_file()
    assert not out.exists()


def test_one_at_a_time(data: Path, tmp_path: Path) -> None:
    """A second one in the same folder is told so, and harms nothing."""
    with run.locked(tmp_path / "m.run"), pytest.raises(UserError, match="Another process"):
        run.full("palm", settings(data, tmp_path / "m"))


@pytest.mark.parametrize(
    ("folders", "store"),
    [
        ({"--out": "m"}, "m.run"),
        # a worker's: the folder r goes in the end
        ({"--run": "r", "--out": "r/m"}, "."),
    ],
)
def test_as_a_program_calls_it(
    data: Path, tmp_path: Path, folders: dict[str, str], store: str
) -> None:
    """Exit code 0, one line of JSON on stdout, progress in its file, the run in MLflow."""
    mlflow = pytest.importorskip("mlflow")
    file, progress = tmp_path / "c.yaml", tmp_path / "progress.json"
    out = tmp_path / folders["--out"]
    places = [w for name, folder in folders.items() for w in (name, tmp_path / folder)]
    file.write_text(yaml.safe_dump(SMALL))
    done = subprocess.run(
        command(file, "--data", data, *places, "--seed", 3, "--progress-file", progress),
        capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert (told["model"], told["version"], told["alias"]) == ("palm-detector", "1", None)
    assert told["digest"] == folder_digest(out)
    shown = json.loads(progress.read_text())
    assert (shown["step"], shown["steps"]) == (6, 6)
    assert shown["metrics"].keys() >= {"loss", "score"}

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / store / 'mlflow.db'}")
    (version,) = client.search_model_versions("name='palm-detector'")
    kept = client.get_run(version.run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.params["seed"] == "3"
    assert kept.data.tags["weights"] == told["weights"]
    assert kept.data.metrics["f1_val"] == pytest.approx(told["metrics"]["f1_val"])
    # validated after three steps and after six
    assert len(client.get_metric_history(version.run_id, "val_score")) == 2
    assert {f.path for f in client.list_artifacts(version.run_id, "model")} == {
        "model/MODEL_CARD.md", "model/model.onnx", "model/model.yaml",
    }  # fmt: skip
    assert (tmp_path / store / "mlartifacts").is_dir()


def test_stdout_has_one_line_whoever_prints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a library prints on the way (MLflow's links to a server) goes to stderr."""

    def full(*_: Any, **__: Any) -> dict[str, Any]:
        print("View run at http://…")
        return {"model": "m"}

    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(SMALL))
    monkeypatch.setattr(run, "full", full)
    cli.app(["palm", "--config", str(file)], standalone_mode=False)
    told = capsys.readouterr()
    assert told.out == '{"model": "m"}\n'
    assert "View run" in told.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--data", "nowhere"], "neither palms/"),
        (["--steps", "0"], "--steps"),
        (["--track", "http://127.0.0.1:9"], "does not take the run"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(
    data: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    """Exit code 2, nothing on stdout, no trace of the program's insides."""
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "data": str(data)}))
    done = subprocess.run(
        command(file, "--out", tmp_path / "m", *options),
        capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=240,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert told in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_resumed(data: Path, tmp_path: Path, number: signal.Signals) -> None:
    """SIGKILL at any moment, or SIGTERM: the resumed run has the weights of one left alone."""
    more = {"steps": 60, "validate_every": 0, "track": "off"}
    file, out = tmp_path / "c.yaml", tmp_path / "killed"
    file.write_text(yaml.safe_dump({**SMALL, **more, "data": str(data)}))
    started = subprocess.Popen(
        command(file, "--out", out), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        cwd=tmp_path, env=environment(),
    )  # fmt: skip
    log, until = tmp_path / "killed.run" / "log.jsonl", time.monotonic() + 120
    while not (log.is_file() and '"step": 20' in log.read_text()):
        assert started.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    started.send_signal(number)
    stdout, _ = started.communicate(timeout=60)
    assert started.returncode == (130 if number == signal.SIGTERM else -number)
    assert not stdout
    assert not out.exists()
    again = run.full("palm", settings(data, out, **more), resume=True)
    assert again["weights"] == run.full("palm", settings(data, tmp_path / "w", **more))["weights"]
    told = [json.loads(x) for x in log.read_text().splitlines()]
    steps = [x["step"] for x in told if "loss" in x]
    assert steps == [10, 20, 30, 40, 50, 60]


def test_only_what_was_trained_so_is_judged(data: Path, tmp_path: Path) -> None:
    """Held out now may be what was learnt then: another config is refused, naming what differs, and so
    are data that were prepared anew. What concerns the judging alone may change."""
    config = settings(data, tmp_path / "m")
    run.full("palm", config)
    before = folder_digest(tmp_path / "m")
    for more in ({"licence": "CC0-1.0"}, {"judged_scenes": 3}, {"minutes": 9}, {}):
        run.evaluate("palm", settings(data, tmp_path / "m", **more))
    with pytest.raises(UserError, match=r"\(other rate, steps;"):
        run.evaluate("palm", settings(data, tmp_path / "m", rate=0.1, steps=7))
    about = tmp_path / "m.run" / "run.json"
    whole = json.loads(about.read_text())
    # as it was written before
    about.write_text(json.dumps({k: v for k, v in whole.items() if k != "learnt"}))
    run.evaluate("palm", config)
    with pytest.raises(UserError, match="with another config"):
        run.evaluate("palm", settings(data, tmp_path / "m", rate=0.1))
    about.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        run.evaluate("palm", config)
    about.write_text(json.dumps(whole))
    shift_a_label(data)
    run.prepare("palm", config)
    with pytest.raises(UserError, match="other data"):
        run.evaluate("palm", config)
    assert folder_digest(tmp_path / "m") == before


@pytest.mark.slow
def test_the_pipeline_redoes_what_changed(data: Path, tmp_path: Path) -> None:
    """``dvc repro``: all of it, then nothing, then all again when a label has changed."""
    pytest.importorskip("dvc")
    here = tmp_path / "project"
    (here / "configs").mkdir(parents=True)
    (here / ".dvc").mkdir()
    mine = (TRAINING / ".dvc" / "config").read_text()
    # it lies in no git repository
    (here / ".dvc" / "config").write_text(mine.replace("[core]\n", "[core]\n    no_scm = true\n"))
    shutil.copy(TRAINING / "dvc.yaml", here)
    (here / "src").symlink_to(TRAINING / "src")
    (tmp_path / "libs").symlink_to(TRAINING.parent / "libs")
    (here / "configs" / "palm.yaml").write_text(
        yaml.safe_dump({**SMALL, "seed": 7, "track": "off"})
    )
    (here / "params.yaml").write_text(yaml.safe_dump({"data": str(data), "runs": "runs"}))
    env = environment()
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"

    def dvc(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words], capture_output=True, text=True, cwd=here,
            env=env, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = dvc("repro", "evaluate-palm")
    assert first.count("Running stage") == 3
    figures = json.loads((here / "runs/palm-detector/figures.json").read_text())
    assert "f1_val" in figures["metrics"]
    assert (here / "runs/palm-detector/model/model.onnx").is_file()
    assert "Running stage" not in dvc("repro", "evaluate-palm")
    shift_a_label(data)
    assert dvc("repro", "evaluate-palm").count("Running stage") == 3
