"""``make bench`` or ``make bench ONLY=merge,raster``: bench/results.json, docs/performance.md.

What is not run keeps the figures of the run before, with their date. ``ONLY=page`` measures nothing:
what is recorded is judged as it would be today, and the page is written anew. ``BENCH_OUT=FOLDER``
writes there and leaves the figures of record alone.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import environment
import report
from harness import ROOT, WORK, judged
from neighbours import Neighbours

CASES = tuple(report.CASES)
_PAGE = "page"
_OUT = os.environ.get("BENCH_OUT")
_HOME = Path(_OUT) if _OUT else ROOT / "bench"
_DOCS = Path(_OUT) if _OUT else ROOT / "docs"
_RESULTS = _HOME / "results.json"
_DETAILS = _HOME / "details.json"
Measured = tuple[list[dict[str, Any]], dict[str, Any]]
"""results.json's lines and a table of the document."""


def main() -> None:
    there = [n for n in CASES if (ROOT / "bench" / "cases" / f"{n}.py").exists()]
    only = [x for x in ",".join(sys.argv[1:]).split(",") if x] or there
    if unknown := set(only) - {*there, _PAGE}:
        sys.exit(
            f"There is no benchmark {', '.join(sorted(unknown))}. There are: {', '.join(there)}."
        )
    sys.path.append(str(ROOT / "tests"))  # the services as processes, a webhook receiver
    for folder in (WORK, _HOME):
        folder.mkdir(parents=True, exist_ok=True)
    lines = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else []
    details = json.loads(_DETAILS.read_text()) if _DETAILS.exists() else {}
    if _PAGE in only:
        only.remove(_PAGE)
        # a try at a share of the size meets nothing, whatever its figures say
        lines = [x if x["met"] is None else judged(x) for x in lines]
        _save(lines, details)
    for name in only:
        print(name, flush=True)
        module = importlib.import_module(f"cases.{name}")
        own = getattr(module, "OWN", None)  # measured in Frond's own environment alone
        if own is None:
            environment.prepare()
        about = {
            "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "settings": environment.settings(),
            "machine": environment.machine(),
            "commit": environment.commit(),
            "versions": environment.own_versions(own) if own else environment.versions(),
        }
        lines = [x for x in lines if x["name"] != name]
        details[name] = {**about, "about": module.ABOUT, "tables": []}
        # after each case, so that a run that is stopped leaves what it has measured
        for fresh, table in with_others(module.run()):
            lines += fresh
            details[name]["tables"].append(table)
            _save(lines, details)
    print(f"{_RESULTS} and {_DOCS / 'performance.md'}; short of target: {report.short(lines)}")


def with_others(tables: Iterable[Measured]) -> Iterator[Measured]:
    """Say in each table what other programs took of the processors while it was measured. One that
    follows at once was measured with the one before it."""
    share, beside = None, Neighbours()
    for lines, table in tables:
        told = beside.share()
        share = share if told is None else told
        yield lines, {**table, "others": share}
        beside = Neighbours()


def _save(lines: list[dict[str, Any]], details: dict[str, Any]) -> None:
    for path, value in ((_RESULTS, lines), (_DETAILS, details)):
        path.write_text(json.dumps(_rounded(value), indent=1, ensure_ascii=False) + "\n")
    # from what is recorded, so that the page can be written again
    report.write(json.loads(_RESULTS.read_text()), json.loads(_DETAILS.read_text()), _DOCS)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return value


if __name__ == "__main__":
    main()
