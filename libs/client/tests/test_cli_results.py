"""Fetching results by name and by pattern; what a job's end tells of its images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from frond.client import Client
from frond.client.cli import app, show
from frond.client.cli.results import fetch
from frond.client.errors import FrondClientError
from frond.client.transfer import sha256_of

NAMES = ("../up.tif", "/etc/x.tif", "C:\\x.tif", "a.tif", "a.tif", "b[1].tif", "sub/c.tif")


FIGURES: dict[str, Any] = {
    "job_id": "j", "status": "successful", "images": {"expected": 2, "completed": 2, "failed": 0},
    "windows": {"total": 4, "done": 4, "skipped": 0, "failed": 0}, "detections": {},
}  # fmt: skip


@pytest.fixture
def imaged(service: Any) -> Any:
    """Images of a job, by name, each with a class raster under its id."""
    listed = [{"name": name, "image_id": f"{n:032x}"} for n, name in enumerate(NAMES)]
    service.results = {
        f"images/{i['image_id']}/classes.tif": i["name"].encode() + b"!" for i in listed
    }

    def images(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/images"):
            return None
        assert request.url.params["status"] == "completed"
        return httpx.Response(200, json={"images": listed, "next_cursor": None})

    service.trouble = images
    return service


def fetched(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_file_of_each_image(imaged: Any, client: Client, tmp_path: Path) -> None:
    """Under the image's name; under its id where that is taken, or would lead out of the folder."""
    out = tmp_path / "in" / "out"
    fetch(client, "j", ["images/*/classes.tif"], out, quiet=True)
    assert fetched(tmp_path / "in") == {
        f"out/images/{place}/classes.tif": NAMES[n].encode() + b"!"
        for n, place in enumerate(
            [*(f"{n:032x}" for n in range(3)), "a.tif", f"{4:032x}", "b[1].tif", "sub/c.tif"]
        )
    }


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("images/b[1].t?f/classes.tif", {"images/b[1].tif/classes.tif"}),
        ("images/sub/*/classes.tif", {"images/sub/c.tif/classes.tif"}),
    ],
)
def test_only_images_whose_name_fits(
    pattern: str, wanted: set[str], imaged: Any, client: Client, tmp_path: Path
) -> None:
    """A bracket is a bracket."""
    fetch(client, "j", [pattern], tmp_path / "out", quiet=True)
    assert set(fetched(tmp_path / "out")) == wanted


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("images/z*/classes.tif", "No completed image of job j has a name like z*"),
        ("images/*", "images/*/classes.tif"), ("images/*/*", "images/*/classes.tif"),
        ("*.json", "images/*/classes.tif"), ("images/*/", "no result's name"), ("images/*/..", "no result's name"),
        ("../x", "no result's name"), ("/x", "no result's name"), ("C:x", "no result's name"),
    ],
)  # fmt: skip
def test_what_fits_nothing_or_leads_out(
    name: str, says: str, imaged: Any, client: Client, tmp_path: Path
) -> None:
    """A sentence, and no file."""
    with pytest.raises(FrondClientError) as told:
        fetch(client, "j", [name], tmp_path / "out", quiet=True)
    assert says in str(told.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def run(service: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command, at a service that has results."""
    door = httpx.MockTransport(service)
    monkeypatch.setattr("frond.client.Client", lambda: Client("http://frond.test", transport=door))
    service.results = {"coco.json": b"{}", "images/a/stac.json": b"[]"}
    spent = {"timings": {"tiling": 1.5, "wait": 2.0}}
    service.statuses = [FIGURES | spent]
    return lambda *words: CliRunner().invoke(app, ["results", "j", *words])


def test_what_was_fetched_as_json(run: Any, tmp_path: Path) -> None:
    """One document: each file with its hash, and where it lies; with --timings, these too."""
    names = ["coco.json", "images/a/stac.json"]
    done = run(*names, "--out", str(tmp_path / "r"), "--json")
    rows = json.loads(done.stdout)
    assert [(r["name"], r["path"]) for r in rows] == [(n, str(tmp_path / "r" / n)) for n in names]
    assert all(r["sha256"] == sha256_of(Path(r["path"])) and r["size"] == 2 for r in rows)
    done = run("coco.json", "--out", str(tmp_path / "r"), "--json", "--timings")
    told = json.loads(done.stdout)
    assert told["results"] == rows[:1] and told["timings"]["tiling"] == 1.5


def test_timings_of_what_is_fetched(run: Any, tmp_path: Path) -> None:
    """After the files; without --timings, the files alone."""
    plain = run("--out", str(tmp_path / "r")).stdout
    assert "coco.json" in plain and "tiling" not in plain and "Fetch them" not in plain
    timed = run("--out", str(tmp_path / "r"), "--timings").stdout
    assert timed.startswith(plain) and "tiling" in timed


def test_timings_are_drawn(run: Any, service: Any) -> None:
    """A bar a stage, as long as its share of the longest one; none for what only waited."""
    service.statuses = [
        FIGURES | {"timings": {"read": 1.0, "run": 4.0, "merge": 1e-6, "wait": 9.0}}
    ]
    lines = {line.split()[0]: line for line in run("--timings").stdout.splitlines() if line.strip()}
    drawn = {name: lines[name].count("█") for name in ("read", "run", "merge", "waited")}
    assert drawn["run"] >= 4 * drawn["read"] > 0 and drawn["run"] < 5 * drawn["read"]
    assert drawn["merge"] == drawn["waited"] == 0 and "▏" in lines["merge"]


def test_timings_are_drawn_where_there_are_few_signs() -> None:
    """A terminal, or a pipe, of another encoding than UTF-8 gets a bar that it can show."""
    code = (
        "from frond.client.cli.show import timings; timings({'timings': {'read': 1.0, 'run': 2.0}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode("latin-1").splitlines()
    drawn = {line.strip("| ").split()[0]: line.count("#") for line in lines if "#" in line}
    assert drawn["run"] == 2 * drawn["read"] > 0


def test_timings_of_a_job_that_runs(run: Any, service: Any) -> None:
    """How far it is, and no empty table."""
    service.statuses = [FIGURES | {"timings": None, "message": "Running; 0 of 2 images done."}]
    done = run("--timings")
    assert done.stdout == "Job j has no timings yet: Running; 0 of 2 images done.\n"


def test_timings_that_were_not_measured(run: Any, service: Any) -> None:
    """A job that was ended from its objects alone: said, and not a table of no time at all."""
    service.statuses = [FIGURES | {"timings": None, "outcome": "completed"}]
    done = run("--timings")
    assert done.stdout.startswith("Job j has no timings: none were measured")


def test_notes_are_shown_at_the_end(
    service: Any, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first ten of the summary's; none before the end, nor of a summary that has none."""
    ended = FIGURES | {"finished": "2026-01-02T03:05:05Z"}
    notes = [{"note": f"note {n} \x1b[2J", "images": 20 - n, "example": "a.tif"} for n in range(12)]
    service.results = {"summary.json": json.dumps({"notes": notes}).encode()}
    show.ended(client, ended)
    out = capsys.readouterr().out
    assert [n for n in range(12) if f"note {n} " in out] == list(range(10))
    assert "2 notes more are in summary.json" in out and "\x1b[2J" not in out
    show.ended(client, FIGURES)
    service.results = {"summary.json": b"{}"}
    show.ended(client, ended)
    service.results = {}
    show.ended(client, ended)
    assert "note" not in capsys.readouterr().out
    # what is listed may be gone: how the job ended is told all the same
    service.results = {"summary.json": b"not JSON"}
    service.trouble = lambda r: httpx.Response(404) if r.url.path.endswith("summary.json") else None
    show.ended(client, ended)
    told = capsys.readouterr()
    assert "successful" in told.out and "cannot be read" in told.err
