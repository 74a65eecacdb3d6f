"""One image, an idle system: how long until its job's end is told, above the model's own time."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import scale
import scene
from chaos.receiver import Receiver
from frond.client.scenes import palm_scene
from harness import ROOT, ROUNDS, WORK, Contender, interleave, limit
from system import OWN, SECRET, Running, System, Timed, contender, stages, told
from trail import WAY, trails

__all__ = ["ABOUT", "OWN", "run"]

_SIDE, _JOBS, _WARM, _RUNS = 1024, 210, 10, 15
_P50_MS, _P99_MS = 150.0, 400.0
_PAUSE_S = 0.2
_WITHIN_S = 60.0
_MODEL = ROOT / "models" / "palm-detector"
_ENDS = ("completed event", "webhook")

ABOUT = f"""\
One drawn GeoTIFF of {_SIDE}² (8-bit RGB), `models/palm-detector`, windows of 512²: nine. One job after
the other, each begun {_PAUSE_S:g} s after the one before was told of, so that the system is idle;
services as in saturation, warmed up with {_WARM} jobs.

- **Frond**: `POST /upload` with the file and a webhook address, from its first byte until the completed
  event is seen on its topic, and until the signed webhook has arrived at a receiver on this machine.
- **session.run**: the model alone in a process of its own, on the same nine windows, read and prepared
  before; one a run, as in the inference service, with as many threads.

What is judged is Frond's time above the median of `session.run` of the same round: upload, planning,
reading, preparing, decoding, merging, writing ten files, and five hops through Kafka. Percentiles
are over the jobs of all rounds.
"""


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and a table of the document."""
    image = WORK / "latency.tif"
    data = scene.geotiff(palm_scene(_SIDE, _SIDE, 150, 3)[0])
    image.write_bytes(data)
    jobs = scale.count(_JOBS // ROUNDS, 5)
    with System("latency", "palm-detector") as system:
        system.push(_MODEL)

        async def ours() -> dict[str, Any]:
            async with system.running() as running:
                return await _round(running, data, jobs)

        args = {"path": str(image), "model": str(_MODEL), "times": _RUNS}
        every = [
            contender("Frond", ours),
            Contender("session.run", "bare_loop:runs", args, frond=True),
        ]
        interleave(every, long_s=float("inf"))
    yield scale.marked(*_judged(every, jobs * ROUNDS))


async def _round(running: Running, data: bytes, jobs: int) -> dict[str, Any]:
    arrived: dict[str, asyncio.Future[float]] = {}
    starts: dict[str, float] = {}
    loop = asyncio.get_running_loop()

    def note(delivery: Any) -> None:
        at = delivery.at if delivery.signed else float("nan")
        loop.call_soon_threadsafe(arrived[delivery.job_id].set_result, at)

    receiver = Receiver(SECRET, note=note)
    receiver.start()

    async def one() -> dict[str, float]:
        job_id = running.system.new_job()
        arrived[job_id] = loop.create_future()
        began = time.time()
        await running.ask(
            "POST", "/upload", files={"files": ("image.tif", data, "image/tiff")},
            data={"job_id": job_id, "webhook_url": receiver.url},
        )  # fmt: skip
        answered = time.time()
        ended = await running.completed(job_id, _WITHIN_S)
        webhook = await asyncio.wait_for(arrived[job_id], _WITHIN_S)
        # idle means idle: what follows a job's end (its status, its markers) is over by then
        await asyncio.sleep(_PAUSE_S)
        starts[job_id] = began
        return {
            "answer": answered - began, "completed event": ended.at - began,
            "webhook": webhook - began, **stages(ended.event),
        }  # fmt: skip

    try:
        for _ in range(_WARM):
            await one()
        starts.clear()
        timed = Timed(running)
        took = [await one() for _ in range(jobs)]
        figures = timed.figures()
    finally:
        receiver.close()
    medians = {k: statistics.median(t[k] for t in took) for k in took[0] if k.startswith("stage ")}
    hops = _hops(await trails(running.system.env["FROND_KAFKA_BOOTSTRAP"]), starts)
    return {
        **figures, **medians, **hops,
        **{k: [t[k] for t in took] for k in ("answer", *_ENDS)},
    }  # fmt: skip


def _hops(sent: dict[str, dict[str, float]], starts: dict[str, float]) -> dict[str, float]:
    """Median milliseconds from one event's sending to the next one's, the first from the request."""
    gaps: dict[str, list[float]] = {t.name: [] for t in WAY}
    for job_id, began in starts.items():
        for topic in WAY if job_id in sent else ():
            at = sent[job_id][topic.name]
            gaps[topic.name].append((at - began) * 1e3)
            began = at
    return {f"hop {name.split('.')[1]}": statistics.median(ms) for name, ms in gaps.items() if ms}


def _judged(every: list[Contender], jobs: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    frond, alone = every
    what = f"Latency: one image of {_SIDE}², {jobs} jobs"
    if any(c.over for c in every):
        rows = [{"contender": c.name, "over": c.over, "seconds": None, "spread": []} for c in every]
        return [], {"title": what, "rows": rows, "plot": "seconds"}
    bases = [r["one"] for r in alone.rounds]
    lines, rows = [], []
    took = {k: np.array([t for r in frond.rounds for t in r[k]]) * 1e3 for k in ("answer", *_ENDS)}
    above = {
        k: np.array(
            [t - b for r, b in zip(frond.rounds, bases, strict=True) for t in r[k]]
        ) * 1e3
        for k in _ENDS
    }  # fmt: skip
    for end in _ENDS:
        for share, most in ((50, _P50_MS), (99, _P99_MS)):
            by_round = [
                float(np.percentile(np.array(r[end]) - b, share)) * 1e3
                for r, b in zip(frond.rounds, bases, strict=True)
            ]
            lines.append(limit(
                "latency", f"upload to {end}, above session.run, p{share}",
                float(np.percentile(above[end], share)), most, "ms",
                [min(by_round), max(by_round)],
            ))  # fmt: skip
    rows.append(_row("session.run of its windows", np.array(bases) * 1e3, None))
    rows.append(_row("Frond, upload to answer", took["answer"], None))
    rows += [_row(f"Frond, upload to {end}", took[end], above[end]) for end in _ENDS]
    return lines, {
        "title": what,
        "rows": rows,
        "plot": "ms",
        "note": f"{_way(frond)} {told(frond)}",
    }


def _way(frond: Contender) -> str:
    hops = {k[4:]: frond.median(k) for k in frond.rounds[0] if k.startswith("hop ")}
    told = ", ".join(f"to {name} {ms:.0f}" for name, ms in hops.items())
    return (
        f"Milliseconds from the request to its event's sending, and on from event to event: {told}."
    )


def _row(name: str, took: np.ndarray, above: np.ndarray | None) -> dict[str, Any]:
    p = {k: float(np.percentile(took, k)) for k in (50, 90, 99)}
    row: dict[str, Any] = {
        "contender": name, "ms": p[50], "p90 ms": p[90], "p99 ms": p[99],
        "least ms": float(took.min()), "most ms": float(took.max()),
        "p50 above, ms": None, "p99 above, ms": None, "spread": [float(took.min()), p[99]],
    }  # fmt: skip
    if above is not None:
        row["p50 above, ms"] = float(np.percentile(above, 50))
        row["p99 above, ms"] = float(np.percentile(above, 99))
    return row
