"""Pipeline files: what they may say, and that the same file is the same run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from frond.client import Client, FrondClientError
from frond.client.environment import find_env_file, frond_env, parse_env
from frond.client.pipelines import load, run_id, start, write_record

GOOD = """
inputs: [in/*.tif]
outputs: out
model: palms
version: production
thresholds: {score: 0.4}
seed: 7
"""


@pytest.fixture
def pipeline(tmp_path: Path, rasters: list[Path]) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(GOOD)
    return path


def test_paths_are_meant_from_the_files_folder(
    pipeline: Path, rasters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    spec = load(pipeline)
    assert spec.files() == sorted(rasters)
    assert spec.outputs == pipeline.parent / "out"
    assert spec.model_ref == "palms@production"


def test_the_same_file_is_the_same_job(
    client: Client, service: Any, pipeline: Path, rasters: list[Path]
) -> None:
    """The id depends on what can change the results, and on nothing else."""
    service.trouble = lambda r: (
        httpx.Response(404, json={"detail": "There is no such job."})
        if r.url.path.startswith("/status/")
        else None
    )
    first = start(client, load(pipeline))
    pipeline.write_text("# a comment\n" + GOOD.replace("outputs: out", "outputs: elsewhere"))
    assert start(client, load(pipeline)) == first
    pipeline.write_text(GOOD.replace("0.4", "0.5"))
    assert start(client, load(pipeline)) != first
    pipeline.write_text(GOOD)
    rasters[0].write_bytes(b"other bytes")
    assert start(client, load(pipeline)) != first
    # over one set of inputs, the order they were listed in does not count
    spec = load(pipeline)
    assert run_id(spec, {"a": "1", "b": "2"}) == run_id(spec, {"b": "2", "a": "1"})


def test_a_run_that_has_ended_is_not_uploaded_again(
    client: Client, service: Any, pipeline: Path
) -> None:
    service.statuses[:] = [{"job_id": "x", "status": "successful"}]
    start(client, load(pipeline))
    assert {r.method for r in service.seen} == {"GET"}


def test_a_run_whose_job_failed_needs_another_name(
    client: Client, service: Any, pipeline: Path
) -> None:
    service.statuses[:] = [{"job_id": "x", "status": "dismissed"}]
    with pytest.raises(FrondClientError, match="--job-id"):
        start(client, load(pipeline))


@pytest.fixture
def nightly(client: Client, service: Any, rasters: list[Path], pipeline: Path) -> Any:
    """A service where the job ``nightly`` ran with this pipeline file's settings and inputs, which
    were sent from here."""
    client.upload(rasters, "nightly")
    summary = {
        "model": {"name": "palms", "digest": "ab" * 32},
        "thresholds": {"score": 0.4, "nms_iou": None, "merge_iou": None},
        "images": [{"name": p.name} for p in rasters],
    }
    service.results = {"summary.json": json.dumps(summary).encode()}
    service.statuses[:] = [
        {"job_id": "nightly", "status": "successful", "created": service.created}
    ]
    service.seen.clear()
    return service


def test_a_run_of_a_given_id_that_has_ended(client: Client, nightly: Any, pipeline: Path) -> None:
    """Its results are this run's: by the option or by the file, whatever an alias points at now, and
    by a part of its digest. Nothing is sent."""
    assert start(client, load(pipeline), job_id="nightly") == "nightly"
    answers = nightly.trouble
    nightly.trouble = lambda r: (
        httpx.Response(200, json={"models": [{"name": "palms", "aliases": {"deadbeef": {}}}]})
        if r.url.path == "/models"
        else answers(r)
    )
    # an alias may look like a digest
    for version in ("staging", "abababab", "deadbeef"):
        pipeline.write_text(GOOD.replace("production", version) + "job_id: nightly")
        assert start(client, load(pipeline)) == "nightly"
    assert {r.method for r in nightly.seen} == {"GET"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("model: palms", "model: trees", "another model"),
        ("version: production", "version: cdcdcdcd", "another model"),
        ("model: palms\nversion: production\n", "", "another model"),
        ("0.4", "0.9", "other thresholds"),
        ("*.tif", "a.tif", "other inputs"),
    ],
)
def test_a_given_id_of_another_run(
    client: Client, nightly: Any, pipeline: Path, old: str, new: str, told: str
) -> None:
    """Its results are not told as this run's: that is said, and nothing is sent."""
    answers = nightly.trouble
    nightly.trouble = lambda r: (
        httpx.Response(200, json={"default": "trees", "models": []})
        if r.url.path == "/models"
        else answers(r)
    )
    pipeline.write_text(GOOD.replace(old, new))
    with pytest.raises(FrondClientError, match=f"nightly ran with {told}.*--job-id"):
        start(client, load(pipeline), job_id="nightly")
    assert {r.method for r in nightly.seen} == {"GET"}


def test_a_given_id_whose_inputs_have_changed(
    client: Client, nightly: Any, pipeline: Path, rasters: list[Path]
) -> None:
    """Bytes of the same names, too, also where the run was interrupted before its record."""
    rasters[0].write_bytes(b"other bytes")
    with pytest.raises(FrondClientError, match="nightly ran with other inputs"):
        start(client, load(pipeline), job_id="nightly")


def test_the_record_tells_which_run_a_job_is(
    client: Client, nightly: Any, pipeline: Path, rasters: list[Path]
) -> None:
    """Exactly, where it is of this job: files of the same bytes are the same, however new; another
    alias is another run."""
    spec = load(pipeline)
    spec.outputs.mkdir()
    told = {"job_id": "nightly", "model": None, "images": {}, "detections": {}}
    record = json.loads(write_record(spec, told, []).read_text())
    assert record["run"] == spec.run and "run" not in record["pipeline"]
    rasters[0].write_bytes(rasters[0].read_bytes())
    os.utime(rasters[0], (1, 1))
    assert start(client, load(pipeline), job_id="nightly") == "nightly"
    pipeline.write_text(GOOD.replace("production", "staging"))
    with pytest.raises(FrondClientError, match="nightly ran with other settings or inputs"):
        start(client, load(pipeline), job_id="nightly")
    write_record(spec, told | {"job_id": "another"}, [])
    os.utime(rasters[0], (2, 2))
    with pytest.raises(FrondClientError, match="nightly ran with other inputs"):
        start(client, load(pipeline), job_id="nightly")


def test_a_run_of_a_given_id_that_was_interrupted(
    client: Client, nightly: Any, pipeline: Path, rasters: list[Path]
) -> None:
    """It goes on, with what the job lacks; unless the job has an image that is not this run's."""
    nightly.statuses[0]["status"] = "running"
    del nightly.images[rasters[0].name]
    start(client, load(pipeline), job_id="nightly")
    assert [r.url.path for r in nightly.seen if r.method == "PUT"] == ["/jobs/nightly/images/a.tif"]
    nightly.seen.clear()
    nightly.images["else.tif"] = b""
    with pytest.raises(FrondClientError, match="nightly ran with other inputs"):
        start(client, load(pipeline), job_id="nightly")
    assert {r.method for r in nightly.seen} == {"GET"}


def test_the_record_has_no_times(pipeline: Path) -> None:
    """run.json is the same for each run of the same file."""
    spec = load(pipeline)
    spec.outputs.mkdir()
    told: dict[str, Any] = {
        "job_id": "x",
        "model": None,
        "images": {},
        "detections": {},
        "created": "now",
    }
    path = write_record(spec, told, [{"name": "coco.json", "sha256": "ab"}])
    record = json.loads(path.read_text())
    assert record["artifacts"] == {"coco.json": "ab"}
    assert "created" not in record
    assert str(pipeline.parent) not in path.read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("inputs: [x", "is no YAML"),
        ("", "holds no fields"),
        ("- a\n- b", "holds no fields"),
        ("inputs: a\noutputs: b\ntypo: 1", "typo"),
        ("inputs: []\noutputs: b", "inputs"),
        ("inputs: a\noutputs: b\nthresholds: {score: 3}", "thresholds.score"),
        ("outputs: b", "inputs"),
    ],
)
def test_a_bad_file_is_told_in_a_sentence(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(FrondClientError, match=told) as caught:
        load(path)
    assert "\n" not in caught.value.detail


def test_a_pattern_without_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("inputs: '*.tif'\noutputs: b")
    with pytest.raises(FrondClientError, match=r"No file matches \*\.tif"):
        load(path).files()
    with pytest.raises(FrondClientError, match="There is no file"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("pattern", ["flights/**.tif", "", "/", ".", "./"])
def test_what_is_no_pattern_is_told(tmp_path: Path, pattern: str) -> None:
    """With what may be written."""
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps({"inputs": [pattern], "outputs": "b"}))
    with pytest.raises(FrondClientError, match=r"is no pattern of files.*flights/\*\*/\*\.tif"):
        load(path).files()


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """.frond/env is found upwards; what the process was given counts more."""
    (tmp_path / ".frond").mkdir()
    (tmp_path / ".frond" / "env").write_text(
        "export FROND_API_URL='http://a b'\nFROND_API_KEY=k # note\n"
    )
    deep = tmp_path / "x" / "y"
    deep.mkdir(parents=True)
    monkeypatch.setenv("FROND_API_KEY", "mine")
    env = frond_env(deep)
    assert (env["FROND_API_URL"], env["FROND_API_KEY"]) == ("http://a b", "mine")
    assert find_env_file(deep) == tmp_path / ".frond" / "env"


def test_what_is_no_assignment_is_passed_over() -> None:
    assert parse_env("hello\nexport A=1 B='2 3'\n'\n=x\n1a=2\n") == {"A": "1", "B": "2 3"}
