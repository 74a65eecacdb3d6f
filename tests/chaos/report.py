"""docs/reliability.md, from the figures of a run. No paths, no host names."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos.figures import Figures
from chaos.outside import ACCIDENTS, COUNTED, MOMENTS
from chaos.plot import course, kills_of
from chaos.runner import FULL_S
from chaos.sabotage import KINDS
from chaos.scenarios import SCENARIOS
from chaos.verdict import CHECKS
from frond.runtime.crashpoints import POINTS

if TYPE_CHECKING:
    from chaos.runner import Run

_COLUMNS: Final = (
    "jobs", "images", "objects", "kills", "crash_points", "faults", "lost", "doubled", "different",
)  # fmt: skip
_TALLIES: Final = {
    "letters_expected": "dead letters due", "letters": "found", "asked": "webhooks asked for",
    "told": "jobs told", "webhooks": "webhooks taken", "driven": "driven again",
}  # fmt: skip
_PICTURE: Final = "img/chaos.svg"
_NOT_COVERED: Final = (
    "More than one broker or more than one MinIO drive: replication, leader elections and erasure"
    " coding are Kafka's and MinIO's own; the native stack has one of each.",
    "Power loss: SIGKILL leaves what the kernel has taken in its page cache; a machine that loses"
    " its power does not. The broker's and MinIO's settings for that are the operator's.",
    "Disks that give back other bytes than were written to them.",
    "A service's own disk that is full (`FROND_CACHE_DIR`, temporary files): single tests do, with"
    " errors made for them.",
    "Clocks that jump.",
    "PostgreSQL as the read model's database: the runs use SQLite.",
    "Images of many gigabytes, GPUs: the scenes are small, the model is the tests' blob model.",
    "E-mail.",
)


def write(path: Path, run: Run, total: Figures) -> None:
    """Write the page; it says how it came about."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = list(_lines(run, total))
    if "random_kills" in run.courses:
        picture = path.parent / _PICTURE
        journal = run.folder / "random_kills" / "journal.jsonl"
        course(picture, run.courses["random_kills"], kills_of(journal))
        at = lines.index("## What is checked")
        lines[at:at] = [f"![Images done over time, and each SIGKILL]({_PICTURE})", ""]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(run: Run, total: Figures) -> Iterator[str]:
    yield "# Reliability"
    yield ""
    yield "Written by the chaos program from its own run; not edited by hand."
    yield ""
    yield "```"
    yield f"{command(run)}"
    yield f"seed={run.seed} duration={run.duration:.0f}"
    yield total.line()
    yield "```"
    yield ""
    missing = [n for n in SCENARIOS if n not in run.outcomes]
    if missing or run.duration < FULL_S or run.interrupted:
        yield (
            f"**Less than the whole.** All scenarios, for {FULL_S:.0f} s at least, would have been: "
            "every crash point twice, 100 kills and a job of 1,000 images at random."
        )
        yield ""
    yield f"- {datetime.now(UTC):%Y-%m-%d}; {total.seconds / 60:.0f} minutes with checks and calm run"
    yield f"- {_machine()}"
    yield f"- {_versions()}"
    yield ""
    yield "## Scenarios"
    yield ""
    everything = [*run.outcomes.items(), ("**all**", total)]
    yield from _table(
        ("scenario", *(c.replace("_", " ") for c in _COLUMNS), "seconds"),
        [(n, *_counts(f, _COLUMNS), f"{f.seconds:,.0f}") for n, f in everything],
    )
    for name in run.outcomes:
        yield f"- `{name}`: {SCENARIOS[name].about}."
    if missing:
        yield f"- not run this time: {', '.join(f'`{n}`' for n in missing)}"
    yield ""
    if total.killed:
        yield "SIGKILL by process: " + _counted(total.killed) + "."
    yield (
        "Ended by themselves with an exit status, and started again (a signal nobody sent is a loss): "
        + (_counted(total.exits) or "none") + "."
    )  # fmt: skip
    if total.bytes_fuzzed:
        yield (
            f"Any bytes on any topic: {total.bytes_fuzzed:,} bytes in {total.messages_fuzzed:,} "
            "messages."
        )
    if total.inputs_fuzzed:
        yield (
            f"Consumers' code under coverage-guided fuzzing: {total.inputs_fuzzed:,} inputs of "
            f"{total.bytes_guided:,} bytes, none of them sent as a message."
        )
    yield ""
    yield from _violations(run)
    yield from _notes(run)
    yield from _tallies(run, total)
    yield from _points(total)
    yield from _checks()
    yield from _sabotages()
    yield "## What is not covered"
    yield ""
    for line in _NOT_COVERED:
        yield f"- {line}"


def _counts(figures: Figures, columns: Iterable[str]) -> list[str]:
    return [f"{getattr(figures, c):,}" for c in columns]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> Iterator[str]:
    """A table whose columns line up; all but the first ``words`` hold numbers."""
    body = [head, *rows]
    widths = [max(len(row[i]) for row in body) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            c.ljust(w) if i < words else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    yield line(head)
    rules = ["-" * (w + 2) if i < words else "-" * (w + 1) + ":" for i, w in enumerate(widths)]
    yield f"|{'|'.join(rules)}|"
    for row in body[1:]:
        yield line(row)
    yield ""


def _tallies(run: Run, total: Figures) -> Iterator[str]:
    yield "## Held against the system"
    yield ""
    yield "Each message that was sent and is no event must have its dead letter, and there may be no"
    yield "other; each job that asked for a webhook must have been told, and may be told again only with"
    yield "a cause; no job may need the reconciler, but those of which a scenario took events away."
    yield ""
    everything = [*run.outcomes.items(), ("**all**", total)]
    yield from _table(
        ("scenario", *_TALLIES.values()),
        [(name, *_counts(figures, _TALLIES)) for name, figures in everything],
    )


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def _violations(run: Run) -> Iterator[str]:
    found = [f"- `{n}`: {d}" for n, f in run.outcomes.items() for d in f.details]
    if found:
        yield "## Violations"
        yield ""
        yield from found[:100]
        yield ""


def _notes(run: Run) -> Iterator[str]:
    found = [f"- `{n}`: {d}" for n, f in run.outcomes.items() for d in f.notes]
    if found:
        yield "## Noted"
        yield ""
        yield from found[:100]
        yield ""


def _points(total: Figures) -> Iterator[str]:
    if not total.points:
        return
    yield "## Crash points"
    yield ""
    yield f"{len(total.points)} of {len(POINTS)} points, {total.points.total()} deaths."
    yield ""
    services = list(dict.fromkeys(name.partition(".")[0] for name in POINTS))
    for service in services:
        mine = [p for p in POINTS if p.startswith(f"{service}.")]
        yield f"### {service}: {sum(total.points[p] > 0 for p in mine)} of {len(mine)}"
        yield ""
        rows = [(f"`{p}`", POINTS[p], str(total.points[p])) for p in mine]
        yield from _table(("point", "state of things", "fired"), rows, words=2)


def _checks() -> Iterator[str]:
    yield "## What is checked"
    yield ""
    yield "The oracle is a journal outside the system: each job is on disk, synced, before its"
    yield "submission begins. After each scenario, by a plain Kafka consumer, listings of the bucket"
    yield "and the webhook receiver's own record:"
    yield ""
    for check in CHECKS:
        yield f"- {check}"
    yield ""
    yield "The calm run is another installation that nobody disturbs, given the same jobs under the"
    yield "same names. Left out of the comparison of bytes, because they say when or by whom:"
    yield ""
    for pattern, fields in MOMENTS.items():
        yield f"- `{pattern}`: the fields {', '.join(f'`{f}`' for f in fields)}"
    for pattern in ACCIDENTS:
        yield f"- `{pattern}`: the bytes; the object must be there"
    for pattern in COUNTED:
        yield f"- `{pattern}`: how many there are"
    yield ""
    yield "`lost` counts whatever is missing, left open, orphaned, dead-lettered or stuck; `doubled`"
    yield "whatever took effect twice, or is there twice and differs; `different` other bytes."
    yield ""


def _sabotages() -> Iterator[str]:
    yield "## How we know that it can fail"
    yield ""
    yield "`SABOTAGE=all make chaos` does one real harm of each kind to a running installation, after its"
    yield "jobs and before the verdict, and ends with status 1. `tests/integration/test_sabotage.py` does"
    yield "so in each `make test`, and each kind must be noticed as what it is:"
    yield ""
    rows = [(f"`{name}`", kind.done, f"`{kind.figure}`") for name, kind in KINDS.items()]
    yield from _table(("sabotage", "what is done", "counted as"), rows, words=3)
    yield "Tests of single checks are in `tests/chaos/test_verdict.py`, `test_outside.py`,"
    yield "`test_workers.py` and `test_guestbook.py`; not each check of the guests has one."
    yield ""


def command(run: Run) -> str:
    """How this run is made again."""
    if run.sabotage:
        named = ",".join(n for n in run.outcomes if n in SCENARIOS)
        only = f"SABOTAGE={','.join(run.sabotage)} " + (f"ONLY={named} " if named else "")
    else:
        only = "" if len(run.outcomes) == len(SCENARIOS) else f"ONLY={','.join(run.outcomes)} "
    points = f"POINTS={named} " if (named := os.environ.get("POINTS")) else ""
    return f"DURATION={run.duration:.0f} SEED={run.seed} {only}{points}make chaos"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB memory, "
        f"{platform.system()} {platform.release().split('-')[0]}"
    )


def _versions() -> str:
    from frond.stack.kafka_jars import KAFKA_VERSION
    from frond.stack.minio_binary import MINIO

    # a Go module's version by date: v0.0.0-20260212201848-…
    minio = MINIO.version.split("-")[1][:8]
    libraries = ("aiokafka", "faust-streaming", "minio", "rasterio", "onnxruntime")
    told = [f"Python {platform.python_version()}", f"Kafka {KAFKA_VERSION}", f"MinIO {minio}"]
    return ", ".join(told + [f"{n} {importlib.metadata.version(n)}" for n in libraries])
