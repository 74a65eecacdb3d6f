"""models reference and drift as a person meets them."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
import typer
from click.testing import Result
from rasterio.transform import from_origin
from typer.testing import CliRunner

from frond.bus import EventProducer, Outgoing, ensure_topics
from frond.client.cli import app
from frond.client.cli.drift import since_of
from frond.contracts import topics
from frond.contracts.drift import BandCompared, DriftVerdict
from frond.contracts.envelope import encode
from frond.contracts.errors import BrokerUnavailable
from frond.contracts.events import DriftObserved
from frond.contracts.jobs import ModelRef
from frond.models import load_manifest
from frond.models.testing import MAGENTA, blob_model
from frond.stack import Endpoints

runner = CliRunner()
NOW = datetime(2026, 5, 8, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No installation leads anywhere."""
    for name in list(os.environ):
        if name.startswith("FROND_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*words: object) -> Result:
    return runner.invoke(app, list(map(str, words)))


def raster(path: Path) -> Path:
    pixels = np.full((3, 200, 200), 90, np.uint8)
    pixels[:, 40:56, 60:76] = np.array(MAGENTA)[:, None, None]
    with rasterio.open(
        path, "w", driver="GTiff", width=200, height=200, count=3, dtype="uint8",
        crs="EPSG:32650", transform=from_origin(500_000, 100_000, 0.5, 0.5),
    ) as out:  # fmt: skip
        out.write(pixels)
    return path


def test_reference_writes_into_the_manifest_and_says_what_of(tmp_path: Path) -> None:
    """Comments stay; a file that is no image is left out, and said."""
    folder = blob_model(tmp_path / "m", size=64, margin=8)
    manifest = folder / "model.yaml"
    manifest.write_text("# mine\n" + manifest.read_text())
    (tmp_path / "train").mkdir()
    raster(tmp_path / "train/a.tif")
    (tmp_path / "train/broken.tif").write_bytes(b"no")
    done = run("models", "reference", "m", "--images", "train")
    assert done.exit_code == 0, done.output
    assert "left out: train/broken.tif" in done.output
    assert "reference of 1 images" in done.output and "Next: frond models push m" in done.output
    assert manifest.read_text().startswith("# mine\n")
    known = load_manifest(folder).reference
    assert known is not None and known.bands[0][90] > 900_000
    told = json.loads(run("models", "reference", "m", "--images", "train/a.tif", "--json").stdout)
    assert told["windows"] == known.windows and told["comments_kept"] is True
    assert load_manifest(folder).reference == known


def test_reference_without_images_is_one_sentence(tmp_path: Path) -> None:
    """And the folder stays as it was."""
    folder = blob_model(tmp_path / "m", size=64, margin=8)
    before = (folder / "model.yaml").read_bytes()
    (tmp_path / "none").mkdir()
    for where in ("none", "gone"):
        done = run("models", "reference", "m", "--images", where)
        assert done.exit_code in (1, 2)
        assert "Traceback" not in done.output
    assert (folder / "model.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30m", NOW - timedelta(minutes=30)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-05-01", datetime(2026, 5, 1, tzinfo=UTC)),
        ("2026-05-01T12:00+02:00", datetime(2026, 5, 1, 10, tzinfo=UTC)),
    ],
)
def test_since_when(text: str, moment: datetime) -> None:
    """So long ago, or a time; UTC where no zone is named."""
    told = since_of(text, NOW)
    assert told == moment
    # it is printed with these words
    assert f"{told:%Y-%m-%d %H:%M}" == f"{moment:%Y-%m-%d %H:%M}"


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "0d", "-3h", "999999w", "2030-01-01", "1969-01-01", "0001-01-01T00:00+14:00"],
)
def test_since_no_time(text: str) -> None:
    """What is no time, or not in the past, is refused."""
    with pytest.raises(typer.BadParameter):
        since_of(text, NOW)


def test_drift_needs_a_broker() -> None:
    """One sentence that names the variable."""
    done = run("drift")
    assert done.exit_code == 2
    assert "FROND_KAFKA_BOOTSTRAP" in done.output
    assert not Path("drift.html").exists()


def test_a_zone_of_ones_own_is_printed_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it says; on the page, too. A broker that goes away meanwhile is one sentence."""
    asked = []

    async def nothing(since: datetime, take: object) -> int:
        asked.append(since)
        return 0

    monkeypatch.setattr("frond.client.drifting.read_drift", nothing)
    done = run("drift", "--since", "2026-05-01T02:30+05:30")
    assert "since 2026-04-30 21:00 UTC" in done.output
    assert "from 2026-04-30 21:00 to" in Path("drift.html").read_text()
    assert asked == [datetime(2026, 4, 30, 21, tzinfo=UTC)]

    async def gone(since: datetime, take: object) -> int:
        raise BrokerUnavailable("Kafka has given nothing for 30 s in the middle of a topic.")

    monkeypatch.setattr("frond.client.drifting.read_drift", gone)
    done = run("drift")
    assert done.exit_code == 1
    assert done.output.strip() == "Kafka has given nothing for 30 s in the middle of a topic."


@pytest.mark.stack
def test_drift_reads_the_topic(
    stack: Endpoints, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Events of two processes are one table and a page; rubbish is counted and passed over."""
    monkeypatch.setenv("FROND_KAFKA_BOOTSTRAP", stack.kafka_bootstrap)
    monkeypatch.setenv("FROND_TOPIC_PREFIX", topic_prefix)
    now = datetime.now(UTC)

    def event(observer: str) -> DriftObserved:
        band = BandCompared(
            band=1, live=(10, 90), reference=(50, 50), values=100, observed=100,
            observed_reference=500,
        )  # fmt: skip
        return DriftObserved(
            model=ModelRef(name="palms", digest="ab" * 32, version="1"), observer=observer * 32,
            started=now - timedelta(minutes=9), ended=now - timedelta(minutes=5), ended_by="time",
            windows=100, windows_run=400, bands=(band,), verdict=DriftVerdict.DRIFTED,
        )  # fmt: skip

    async def send() -> None:
        await ensure_topics(stack.kafka_bootstrap, topic_prefix)
        producer = EventProducer(stack.kafka_bootstrap, topic_prefix, "/test")
        await producer.start()
        await producer.send([Outgoing(topics.DRIFT, event(o)) for o in "aba"])
        await producer.send_raw(topics.DRIFT, b"k", b"rubbish", [])
        good = encode(event("c"), source="/test")
        # well-formed, and nothing can be compared with it
        zeros = good.value.replace(b'"reference":[50,50]', b'"reference":[0,0]')
        assert zeros != good.value
        await producer.send_raw(topics.DRIFT, good.key, zeros, good.headers)
        await producer.stop()

    asyncio.run(send())
    told = json.loads(run("drift", "--since", "1h", "--json").stdout)
    (model,) = told["models"]
    assert (model["periods"], model["windows"], model["verdict"]) == (2, 200, "drifted")
    assert model["figures"]["band 1"]["ks"] == 0.4
    assert told["unreadable"] == 2
    assert "palms" in (tmp_path / "drift.html").read_text()
    assert "No period" in run("drift", "--since", "1h", "--model", "palms@ff").output
