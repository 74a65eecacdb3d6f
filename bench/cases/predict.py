"""The online tile: ``POST /predict`` against ``session.run`` in process."""

from __future__ import annotations

import asyncio
import io
import time
import warnings
from collections.abc import Iterator
from typing import Any

import aiohttp
import numpy as np
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

import scale
from frond.client.scenes import palm_scene
from harness import ROOT, WORK, Contender, entry, interleave, limit
from system import API_KEY, OWN, System, contender

__all__ = ["ABOUT", "OWN", "run"]

_MODEL = ROOT / "models" / "palm-detector"
_SIDE, _IMAGES = 512, 8
_AT_ONCE = (1, 8, 32)
_REQUESTS, _WARM = 400, 20
_ABOVE_MS, _SHARE = 5.0, 0.85

ABOUT = f"""\
Drawn RGB images of {_SIDE}², as PNG and as npy, and `models/palm-detector`: one window an image.

- **Frond**: the inference service alone, as a process with its default settings; {_REQUESTS} requests
  `POST /predict` over kept-alive connections, 1, 8 and 32 at once. From the request until the answer
  is read: the image is checked, planned, read, run, decoded, merged and told as JSON.
- **session.run**: one process, the same windows as arrays ready for the model, ONNX Runtime with its
  default options, one window a run and eight; nothing is decoded.

The client is one more process on the same cores. *each* is the time a request takes up: 1 ÷
throughput. At 32 at once it is held against the faster of the two batch sizes.
"""


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and a table of the document."""
    number = scale.count(_REQUESTS, 40)
    images = [palm_scene(_SIDE, _SIDE, 40, seed)[0] for seed in range(_IMAGES)]
    bodies = {"png": [_png(i) for i in images], "npy": [_npy(i) for i in images]}
    WORK.mkdir(parents=True, exist_ok=True)
    windows = WORK / f"windows-{_SIDE}.npy"
    np.save(windows, np.stack(images))
    with System("predict", "palm-detector") as system:
        system.push(_MODEL)

        async def ours() -> dict[str, Any]:
            async with system.running("inference") as running:
                url = running.services.url("inference") + "/predict"
                figures: dict[str, Any] = {}
                for kind, given in bodies.items():
                    for at_once in _AT_ONCE:
                        await _ask(url, given, _WARM, at_once)
                        cpu = running.cpu()["inference"]
                        took, whole = await _ask(url, given, number, at_once)
                        figures |= {
                            f"{kind} {at_once} p50": float(np.median(took)),
                            f"{kind} {at_once} p99": float(np.quantile(took, 0.99)),
                            f"{kind} {at_once} each": whole / number,
                            f"{kind} {at_once} cpu": running.cpu()["inference"] - cpu,
                        }
                return {**figures, "seconds": figures["png 1 p50"]}

        args = {"path": str(windows), "model": str(_MODEL), "number": number}
        frond = contender("Frond", ours)
        bare = Contender("session.run", "bare_session:runs", args, frond=True)
        interleave([frond, bare], long_s=float("inf"))
    yield scale.marked(_lines(frond, bare), _table(frond, bare))


def _lines(frond: Contender, bare: Contender) -> list[dict[str, Any]]:
    if frond.over or bare.over:
        return []
    lines = []
    least = bare.median("batch 1 p50") or 0.0
    best = min((_part(bare, f"batch {n}") for n in (1, 8)), key=lambda c: c.median("seconds") or 0)
    for kind in ("png", "npy"):
        above = [(r[f"{kind} 1 p50"] - least) * 1000 for r in frond.rounds]
        lines += [
            limit(
                "predict", f"{kind}, 1 at once, p50 above session.run", float(np.median(above)),
                _ABOVE_MS, "ms", (min(above), max(above)),
            ),
            entry(
                "predict", f"{kind}, {_AT_ONCE[-1]} at once, throughput, vs {best.name}",
                _part(frond, f"{kind} {_AT_ONCE[-1]}"), best, "seconds", "s a request", _SHARE,
            ),
        ]  # fmt: skip
    return lines


def _part(one: Contender, part: str) -> Contender:
    """One of the things that a contender measured in each round, as a contender of its own."""
    rounds = [{"seconds": r[f"{part} each"], "cpu": r.get(f"{part} cpu", 0.0)} for r in one.rounds]
    return Contender(f"{one.name}, {part}", "", {}, rounds=rounds)


def _table(frond: Contender, bare: Contender) -> dict[str, Any]:
    parts = [(frond, f"{kind} {n}") for kind in ("png", "npy") for n in _AT_ONCE]
    parts += [(bare, "batch 1"), (bare, "batch 8")]
    rows = []
    for one, part in parts:
        each = one.median(f"{part} each") if not one.over else None
        rows.append({
            "contender": f"{one.name}, {part}{' at once' if one is frond else ''}",
            "over": one.over,
            **{
                f"{k} ms": v * 1000 if (v := one.median(f"{part} {k}")) else None
                for k in ("p50", "p99", "each")
            },
            "requests/s": 1 / each if each else None,
            "spread": [s * 1000 for s in one.spread(f"{part} each")],
            "rounds": len(one.rounds),
        })  # fmt: skip
    return {"title": f"Predict: {_SIDE}² images", "rows": rows, "plot": "each ms"}


async def _ask(
    url: str, bodies: list[bytes], number: int, at_once: int
) -> tuple[list[float], float]:
    """Each request's seconds, and those of all together."""
    took: list[float] = []
    left = iter(range(number))

    async def one(http: aiohttp.ClientSession) -> None:
        for n in left:
            began = time.perf_counter()
            async with http.post(url, data=bodies[n % len(bodies)]) as answer:
                said = await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"/predict: {answer.status} {said[:300]!r}")
            took.append(time.perf_counter() - began)

    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/octet-stream"}
    async with aiohttp.ClientSession(
        headers=headers, connector=aiohttp.TCPConnector(limit=at_once), trust_env=False
    ) as http:
        began = time.perf_counter()
        await asyncio.gather(*(one(http) for _ in range(at_once)))
        return took, time.perf_counter() - began


def _png(image: np.ndarray) -> bytes:
    with MemoryFile() as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(
            driver="PNG", width=_SIDE, height=_SIDE, count=3, dtype="uint8"
        ) as out:  # fmt: skip
            out.write(np.moveaxis(image, -1, 0))
        return bytes(memory.read())


def _npy(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, image)
    return out.getvalue()
