"""``make demo``: 24 scenes with planted palms through the whole pipeline, and what came out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from frond.client.cli import show
from frond.client.client import Client
from frond.client.environment import frond_env, setting
from frond.client.errors import FrondClientError
from frond.contracts.reasons import Reason

if TYPE_CHECKING:
    from frond.client.demo.compare import Found, Match
    from frond.client.demo.rasters import Planted
    from frond.client.demo.receiver import Receiver
    from frond.client.demo.report import Check

FILES: Final = ("coco.json", "coco-results.json", "detections.geojson", "detections.parquet",
                "summary.json")  # fmt: skip
REASONS: Final = {"23-notes.tif": "not-a-raster", "24-cut-off.tif": "truncated"}
LEAST: Final = 0.85
TENANT: Final = "demo"
KEY_FOR: Final = timedelta(days=1)
WAIT_S: Final = 1200.0
WEBHOOK_S: Final = 60.0
SHUT: Final = (
    "the installation that runs here sends no webhooks to this machine, so the demo leaves them out. "
    "`make down && make demo` shows them; so does an installation that was started by "
    "`FROND_EGRESS_ALLOW=127.0.0.1 make up`."
)


def run_demo(out: Path) -> int:
    """Run it; returns the exit code: 0 only if all that had to hold holds."""
    from frond.client.demo import rasters
    from frond.client.demo.receiver import receiving

    console = show.console()
    env = frond_env()
    out.mkdir(parents=True, exist_ok=True)
    console.print(f"[bold]1.[/] Drawing 24 scenes into {out / 'scenes'}")
    planted, bad = rasters.make_scenes(out / "scenes", _ticking(console))
    job_id = f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with own_key() as client, receiving(setting(env, "FROND_WEBHOOK_SECRET")) as receiver:
        receiver.job_id = job_id
        console.print(f"[bold]2.[/] Uploading them to {client.api_url} as job [bold]{job_id}[/]")
        began = time.monotonic()
        submit(client, rasters.paths_of(planted, bad), job_id, receiver)
        console.print("[bold]3.[/] Following the job")
        job = show.following(client, job_id, timeout=WAIT_S)
        seconds = time.monotonic() - began
        if receiver.shut:
            console.print(f"[bold]4.[/] No webhook to wait for: {SHUT}")
        else:
            console.print(f"[bold]4.[/] Waiting for the webhook at {receiver.url}")
            receiver.arrived.wait(WEBHOOK_S)
        console.print(f"[bold]5.[/] Fetching results into {out}")
        if job["status"] == "successful":
            for listed in client.results(job_id):
                client.download(
                    job_id, listed["name"], out / listed["name"], sha256=listed["sha256"]
                )
    return 0 if _report(out, job, planted, receiver, seconds) else 1


@contextmanager
def own_key() -> Iterator[Client]:
    """A client whose key is the demo's own: of the tenant ``demo``, revoked at the end.

    FROND_API_KEY, which must be an admin's, does nothing but make it. Raises FrondClientError.
    """
    with Client() as admin:
        made = admin.keys.create(
            "frond demo", tenant=TENANT, scopes=("submit", "read"),
            # for a demo that is killed
            expires=datetime.now(UTC) + KEY_FOR,
        )  # fmt: skip
        try:
            with Client(api_key=made["key"]) as client:
                yield client
        finally:
            admin.keys.revoke(made["id"])


def submit(client: Client, files: Sequence[Path], job_id: str, receiver: Receiver) -> None:
    """Upload the scenes; without a webhook where the installation lets none through to here."""
    try:
        with show.uploading() as progress:
            client.upload(files, job_id, webhook_url=receiver.url, progress=progress)
    except FrondClientError as e:
        # refused before the first byte, and the job is not there yet
        if e.reason != Reason.BAD_REQUEST or "FROND_EGRESS_ALLOW" not in e.detail:
            raise
        receiver.shut = True
        show.console().print(f"   [yellow]{SHUT}[/]")
        with show.uploading() as progress:
            client.upload(files, job_id, progress=progress)


def _ticking(console: Any) -> Any:
    drawn: list[Path] = []

    def tick(path: Path) -> None:
        drawn.append(path)
        if len(drawn) % 8 == 0:
            console.print(f"   {len(drawn)} of 24", style="dim")

    return tick


def _report(
    out: Path,
    job: Mapping[str, Any],
    planted: Sequence[Planted],
    receiver: Receiver,
    seconds: float,
) -> bool:
    from frond.client.demo import compare, report

    console = show.console()
    console.print()
    report.figures(job, seconds)
    report.failures(job)
    if job["timings"] is not None:
        show.timings(job)
    found: dict[str, Found] = {}
    features: dict[str, dict[int, Mapping[str, Any]]] = {}
    if (out / "coco.json").exists() and job["status"] == "successful":
        found = compare.found_by_name(json.loads((out / "coco.json").read_text("utf-8")))
        features = compare.features_by_name(
            json.loads((out / "detections.geojson").read_text("utf-8"))
        )
    matches = {
        p.scene.name: compare.match(p.boxes, p.ignored, found[p.scene.name])
        for p in planted
        if p.scene.name in found
    }
    offsets = [
        metres
        for p in planted
        if p.scene.name in matches
        for metres in compare.map_offsets(
            features.get(p.scene.name, {}), found[p.scene.name], matches[p.scene.name], p.centres
        )
    ]
    total = compare.score(list(matches.values()))
    report.scores(total, _by_kind(planted, matches), offsets)
    if matches:
        picture = _draw(out, planted, found, matches, job, total)
        console.print(f"\nThe picture: [bold]{picture}[/]\n")
    return report.checks(_checks(out, job, planted, matches, total, offsets, receiver))


def _by_kind(planted: Sequence[Planted], matches: Mapping[str, Match]) -> dict[str, Any]:
    from frond.client.demo import compare

    groups: dict[str, list[Match]] = {}
    for p in planted:
        if p.scene.name in matches:
            matched = matches[p.scene.name]
            groups.setdefault(f"{p.scene.dtype}, {p.scene.gsd * 100:.0f} cm", []).append(matched)
            if p.scene.edge:
                groups.setdefault(f"with {p.scene.edge}", []).append(matched)
            if p.scene.rotation:
                groups.setdefault("rotated", []).append(matched)
    return {kind: compare.score(some) for kind, some in sorted(groups.items())}


def _draw(
    out: Path,
    planted: Sequence[Planted],
    found: Mapping[str, Found],
    matches: Mapping[str, Match],
    job: Mapping[str, Any],
    total: Any,
) -> Path:
    from frond.client.demo import overlay

    model = job["model"]
    title = f"{sum(job['detections'].values()):,} palms in {job['images']['completed']} images"
    subtitle = (
        f"Drawn scenes, not photographs. {model['name']} {model['version']}: recall "
        f"{total.recall:.1%}, precision {total.precision:.1%} on {total.planted:,} planted palms; "
        f"{job['windows']['done']} windows."
    )
    failed = [(f["name"], f["detail"]) for f in job["failures"]]
    sheet = overlay.contact_sheet(overlay.chosen(planted, found, matches), title, subtitle, failed)
    overlay.save(sheet, out / "overlay.png")
    return out / "overlay.png"


def _checks(
    out: Path,
    job: Mapping[str, Any],
    planted: Sequence[Planted],
    matches: Mapping[str, Match],
    total: Any,
    offsets: Sequence[float],
    receiver: Receiver,
) -> list[Check]:
    from statistics import median

    from frond.client.demo.report import Check

    images, windows = job["images"], job["windows"]
    failed = {f["name"]: f["reason"] for f in job["failures"]}
    outcome = job.get("outcome") or job["status"]
    missing = [n for n in FILES if not (out / n).is_file() or not (out / n).stat().st_size]
    settled = windows["done"] + windows["skipped"] + windows["failed"]
    told = [] if receiver.shut else [_webhook(receiver, outcome)]
    return [
        Check(
            "every image is accounted for",
            images["expected"] == 24 == images["completed"] + images["failed"]
            and outcome == "completed_with_errors",
            f"{images['completed']} completed + {images['failed']} failed of "
            f"{images['expected']}; the job is {outcome}",
        ),
        Check(
            "every window is accounted for",
            windows["total"] > 0 and settled == windows["total"] and not windows["failed"],
            f"{windows['done']} run + {windows['skipped']} skipped + {windows['failed']} failed "
            f"of {windows['total']}",
        ),
        Check(
            "exactly the two bad files failed, each with its reason",
            failed == REASONS,
            ", ".join(f"{n}: {r}" for n, r in sorted(failed.items())) or "none failed",
        ),
        Check(
            f"recall and precision on drawn scenes are {LEAST} or more",
            len(matches) == len(planted) and total.recall >= LEAST and total.precision >= LEAST,
            f"{total.recall:.3f} and {total.precision:.3f}",
        ),
        Check(
            "boxes lie on the planted palms in the map",
            bool(offsets) and median(offsets) < 0.5,
            f"median {median(offsets):.2f} m, at most {max(offsets):.2f} m"
            if offsets
            else "no features to compare",
        ),
        *told,
        Check(
            "COCO, GeoJSON, GeoParquet are there",
            not missing,
            f"in {out}" if not missing else f"missing: {', '.join(missing)}",
        ),
    ]


def _webhook(receiver: Receiver, outcome: str) -> Check:
    from frond.client.demo.report import Check

    return Check(
        "the signed webhook arrived and its signature is right",
        receiver.verified and receiver.body["data"]["outcome"] == outcome,
        f"id {receiver.headers.get('webhook-id', '')}"
        if receiver.verified
        else receiver.error or f"nothing came within {WEBHOOK_S:.0f} s",
    )
