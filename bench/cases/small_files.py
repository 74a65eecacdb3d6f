"""Many small GeoTIFFs through the whole system, and their upload alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scale
import scene
from cases.saturation import table
from frond.client import Client
from harness import ROOT, WORK, Contender, entry, interleave
from system import API_KEY, OWN, Running, System, Timed, contender, endpoints_json, stages, told

__all__ = ["ABOUT", "OWN", "run"]

_FILES, _SIDE, _WARM, _AT_ONCE = 1000, 512, 16, 4
_TARGET = 0.80
_CAP_S = 1800.0
_MODEL = ROOT / "models" / "palm-detector"

ABOUT = f"""\
1,000 drawn GeoTIFFs of {_SIDE}² (8-bit RGB, deflate, about 0.6 MB each), `models/palm-detector`: one
window an image.

- **Frond**: `frond.client.Client.upload`, {_AT_ONCE} files at once as by default, to the REST service: a job is
  created, filled by PUTs and sealed; until the completed event is seen. Services as in saturation.
- **a bare loop**: as in saturation, over the same bytes, which lie in MinIO already: it uploads
  nothing. It writes each image's artifacts and the job's.

*Upload alone*: from the first request until the job is sealed, with the ingest service and no other
running, so that nothing is processed meanwhile. Against it the same files by minio-py with as many
threads: as it puts files of this size (one request each), and as multipart uploads of one part
(three requests each). Frond's figure includes a claim and a manifest an image, and its events.
"""


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and a table of the document, one for each of the two questions."""
    number = scale.count(_FILES, 2 * _WARM)
    print(f"  drawing {number} files", flush=True)
    files = scene.small_files(number, _SIDE, WORK)
    with System("small-files", "palm-detector") as system:
        system.push(_MODEL)
        system.put_all({f"rasters/small/{f.name}": f for f in files})
        system.put_all({f"rasters/warm/{f.name}": f for f in files[:_WARM]})
        yield scale.marked(*_whole(system, files))
        yield scale.marked(*_upload(system, files))


def _whole(system: System, files: list[Path]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    async def ours() -> dict[str, Any]:
        async with system.running() as running:
            await running.completed(await _send(running, files[:_WARM]), 300)
            timed = Timed(running)
            ended = await running.completed(await _send(running, files), _CAP_S)
            event = ended.event
            return {
                **timed.figures(ended.at), **stages(event),
                "windows": event.windows.done, "kept": sum(event.detections.values()),
            }  # fmt: skip

    args = {
        "endpoints": endpoints_json(system), "model": str(_MODEL), "prefix": "rasters/small/",
        "warm": "rasters/warm/",
    }  # fmt: skip
    every = [
        contender("Frond", ours),
        Contender("a bare loop", "bare_loop:rasters", args, frond=True),
    ]
    interleave(every, _CAP_S, long_s=float("inf"))
    what = f"{len(files):,} GeoTIFFs of {_SIDE}²"
    line = entry(
        "small_files", f"{what}, upload to completed, throughput, vs a bare loop over stored objects",
        every[0], every[1], "seconds", "s", _TARGET,
    )  # fmt: skip
    return [line], table(f"Small files: {what}, upload to completed", every)


def _upload(system: System, files: list[Path]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    async def ours() -> dict[str, Any]:
        async with system.running("ingest") as running:
            await _send(running, files[: 2 * _AT_ONCE])
            timed = Timed(running)
            await _send(running, files)
            return {**timed.figures(), "kept": len(files)}

    every = [contender("Frond, ingest alone", ours)]
    for name, target in (("one request a file", "plain"), ("multipart uploads", "multipart")):
        args = {
            "endpoints": endpoints_json(system), "folder": str(files[0].parent),
            "files": len(files), "at_once": _AT_ONCE, "prefix": f"raw-{target}",
        }  # fmt: skip
        every.append(Contender(f"minio-py, {name}", f"minio_puts:{target}", args, frond=True))
    interleave(every, _CAP_S, long_s=float("inf"))
    what = f"{len(files):,} GeoTIFFs of {_SIDE}², upload alone"
    lines = [
        entry("small_files", f"{what}, throughput, vs {c.name}", every[0], c, "seconds", "s", _TARGET)
        for c in every[1:]
    ]  # fmt: skip
    megabytes = sum(f.stat().st_size for f in files) / 1e6
    rows = [
        {
            "contender": c.name, "over": c.over, "seconds": s, "spread": c.spread("seconds"),
            "CPU s": c.median("cpu"), "files/s": len(files) / s if s else None,
            "MB/s": megabytes / s if s else None, "rounds": len(c.rounds),
        }
        for c, s in ((c, c.median("seconds")) for c in every)
    ]  # fmt: skip
    return lines, {
        "title": f"Small files: {what}", "rows": rows, "plot": "seconds", "note": told(every[0]),
    }  # fmt: skip


async def _send(running: Running, files: list[Path]) -> str:
    """Upload as a user's program does: in threads of its own; returns the job's id."""
    job_id = running.system.new_job()
    url = running.services.url("ingest")

    def send() -> None:
        with Client(
            url, API_KEY, at_once=_AT_ONCE, journal_dir=running.system.folder / "journal"
        ) as client:
            client.upload(files, job_id)

    await asyncio.to_thread(send)
    return job_id
