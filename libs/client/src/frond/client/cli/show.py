"""Tables, lines and bars for people; JSON for machines.

What others have named or said is shown by :func:`visible`: a terminal obeys none of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from frond.contracts.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

    from frond.client import Client
    from frond.client.transfer import OnProgress
    from frond.client.watching import JobEvent

_MOST_NOTES = 10
# characters of the longest bar
_BAR = 30
_COLOURS = {
    "successful": "green", "completed": "green", "failed": "red", "dismissed": "yellow",
    "completed_with_errors": "yellow",
}  # fmt: skip


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; wide enough for one line a row where there is none."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=160)


def as_json(value: object) -> None:
    """One JSON document on stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def line(text: str, *, err: bool = False) -> None:
    """A line on stdout, or stderr, that holds what others have named or said."""
    typer.echo(visible(text), err=err)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: str | Collection[int] = ""
) -> None:
    """A table; ``right``: the columns that are numbers, by their names separated by blanks or by place."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    numbers = right.split() if isinstance(right, str) else right
    for place, name in enumerate(columns):
        is_number = name in numbers or place in numbers
        made.add_column(
            name, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold"
        )
    for row in rows:
        made.add_row(*(Text("" if v is None else visible(str(v))) for v in row))
    console().print(made)


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def moment(text: str | None) -> str:
    """An ISO time without the fraction."""
    return (text or "")[:19].replace("T", " ")


def standing(figures: Mapping[str, Any]) -> str:
    """How a job stands, in a word: its outcome once it has ended, and ``failed`` where no image completed."""
    failed = figures["status"] == "failed"
    return "failed" if failed else figures.get("outcome") or figures["status"]


def expected(images: Mapping[str, Any]) -> str:
    """How many images a job will have; a question mark until that is known."""
    return "?" if images["expected"] is None else str(images["expected"])


def _marked(text: str) -> str:
    from rich.markup import escape

    return escape(visible(text))


def ended(client: Client, figures: Mapping[str, Any]) -> None:
    """:func:`job`, and what should be known of its images once it has ended."""
    from frond.client.errors import FrondClientError

    job(figures)
    try:
        notes = client.notes(figures["job_id"]) if figures.get("finished") else []
    except FrondClientError as e:
        # how the job ended is known, and the command's answer
        line(f"Notes on its images cannot be read: {e}", err=True)
        return
    if notes:
        rows = [(n["note"], n["images"], n["example"]) for n in notes[:_MOST_NOTES]]
        table(["note", "images", "such as"], rows, right="images")
    if len(notes) > _MOST_NOTES:
        line(f"{len(notes) - _MOST_NOTES} notes more are in summary.json.")


def job(figures: Mapping[str, Any]) -> None:
    """Where a job stands, with its failures."""
    out = console()
    images, windows = figures["images"], figures["windows"]
    told = standing(figures)
    colour = _COLOURS.get(told, "cyan")
    model = figures.get("model") or {}
    found = ", ".join(f"{n} {_marked(c)}" for c, n in sorted(figures["detections"].items()))
    version = f"{model.get('name', '-')} {model.get('version', '')}".strip()
    rows = [
        ("job", f"[bold]{_marked(figures['job_id'])}[/]  [{colour}]{told}[/]"),
        ("images", f"{images['completed']} completed, {images['failed']} failed, "
                   f"of {expected(images)}"),
        ("windows", f"{windows['done']} done, {windows['skipped']} skipped, "
                    f"{windows['failed']} failed, of {windows['total']}"),
        ("detections", found or "none"),
        ("model", f"{_marked(version)} ({model['digest'][:12]})" if model else "-"),
        ("created", moment(figures.get("created"))),
        ("finished", moment(figures.get("finished")) or "-"),
    ]  # fmt: skip
    if shadow := figures.get("shadow"):
        ref, share = shadow["model"], shadow["share"]
        told = f"{_marked(ref['name'])} {_marked(ref['version'])} ({ref['digest'][:12]})"
        rows.insert(5, ("shadow", f"{told} on {share:.4g} of the windows"))
    for name, value in rows:
        out.print(f"[dim]{name:>10}[/]  {value}")
    if figures.get("failures"):
        table(
            ["failed image", "reason", "what is wrong"],
            [(f["name"], f["reason"], f["detail"]) for f in figures["failures"]],
        )


def timings(figures: Mapping[str, Any]) -> None:
    """Time by stage as bars, summed over all workers; waiting in queues has no share in the work."""
    spent = dict(figures.get("timings") or {})
    waited = spent.pop("wait", None)
    total = sum(spent.values()) or 1.0
    longest = max(spent.values(), default=0.0) or 1.0
    # a stage without any time was not measured
    rows = [
        (stage, f"{seconds:.2f}", f"{100 * seconds / total:.0f} %", _bar(seconds / longest))
        for stage, seconds in spent.items()
        if seconds > 0
    ]
    if waited is not None:
        rows.append(("waited in queues", f"{waited:.2f}", "", ""))
    table(["stage, all workers", "seconds", "share", ""], rows, right="seconds share")


def _bar(part: float) -> str:
    """A bar of so much of its room, in eighths of a character where the terminal has these."""
    if console().options.ascii_only:
        return "#" * max(1, round(_BAR * part))
    whole, eighths = divmod(max(1, round(8 * _BAR * part)), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


@contextmanager
def uploading(quiet: bool = False) -> Iterator[OnProgress]:
    """A progress bar for an upload; lines where there is no terminal."""
    from frond.client.transfer import Progress

    out = console(stderr=True)
    if quiet or not out.is_terminal:
        said = [-1]

        def line(p: Progress) -> None:
            tenth = 10 * p.files_done // max(p.files, 1)
            if tenth > said[0] and not quiet:
                said[0] = tenth
                out.print(f"uploaded {p.files_done} of {p.files} files, {size(p.bytes_done)}")

        yield line
        return
    from rich import progress as bars

    with bars.Progress(
        bars.TextColumn("uploading"), bars.BarColumn(), bars.TextColumn("{task.fields[told]}"),
        bars.DownloadColumn(), bars.TransferSpeedColumn(), bars.TimeRemainingColumn(),
        console=out,
    ) as shown:  # fmt: skip
        task = shown.add_task("", total=None, told="")

        def update(p: Progress) -> None:
            shown.update(
                task, total=p.bytes, completed=p.bytes_done,
                told=f"{p.files_done}/{p.files} files",
            )  # fmt: skip

        yield update


@contextmanager
def left_behind(told: Callable[[], str]) -> Iterator[None]:
    """Whoever interrupts a command learns what goes on without it; ``told`` is asked then."""
    try:
        yield
    except KeyboardInterrupt:
        if said := told():
            line(said, err=True)
        raise


def goes_on(job_id: str) -> str:
    """What there is to know of a job that nobody follows any more."""
    return (
        f"Job {job_id} goes on: `frond watch {job_id}` follows it, `frond cancel {job_id}` ends it."
    )


def following(
    client: Client, job_id: str, *, quiet: bool = False, timeout: float | None = None
) -> dict[str, Any]:
    """Follow a job with live bars until it has ended; returns its status."""
    with left_behind(lambda: goes_on(job_id)):
        return _followed(client, job_id, quiet, timeout)


def _followed(client: Client, job_id: str, quiet: bool, timeout: float | None) -> dict[str, Any]:
    from frond.client.watching import within

    out = console(stderr=True)
    if quiet:
        return client.wait(job_id, timeout)
    events = within(client.watch(job_id), job_id, timeout)
    if not out.is_terminal:
        _following_in_lines(events, out)
        return client.status(job_id)
    from rich import progress as bars

    with bars.Progress(
        bars.TextColumn("{task.description:>8}"), bars.BarColumn(), bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[told]}"), bars.TimeElapsedColumn(), console=out,
    ) as shown:  # fmt: skip
        images = shown.add_task("images", total=None, told="")
        windows = shown.add_task("windows", total=None, told="")
        for event in events:
            data = event.data
            if event.type == "image":
                if data.get("status") == "failed":
                    name, why = _marked(str(data.get("name"))), _marked(str(data.get("detail")))
                    shown.console.print(f"[red]failed[/]  {name}: {why}")
                continue
            i, w = data["images"], data["windows"]
            found = ", ".join(f"{n} {_marked(c)}" for c, n in sorted(data["detections"].items()))
            shown.update(
                images, total=i["expected"], completed=i["completed"] + i["failed"],
                told=f"{i['failed']} failed" if i["failed"] else "",
            )  # fmt: skip
            shown.update(
                windows, total=w["total"] or None,
                completed=w["done"] + w["skipped"] + w["failed"], told=found,
            )  # fmt: skip
    return client.status(job_id)


def _following_in_lines(events: Iterator[JobEvent], out: Console) -> None:
    """A line at each tenth of the images, or of the windows meanwhile: one large raster has no images
    between. At each doubling while the number of images is not known; at the end."""
    said, told = (False, -1, -1), ""
    for event in events:
        if event.type == "image":
            if event.data.get("status") == "failed":
                name, why = event.data.get("name"), event.data.get("detail")
                out.print(visible(f"failed: {name}: {why}"), markup=False)
            continue
        i, w = event.data["images"], event.data["windows"]
        done, whole = i["completed"] + i["failed"], i["expected"]
        run, windows = w["done"] + w["skipped"] + w["failed"], w["total"]
        is_known = whole is not None
        images = 10 * done // max(whole, 1) if is_known else done.bit_length()
        step = (is_known, images, 10 * run // max(windows, 1))
        now = f"{done} of {expected(i)} images done, {i['failed']} failed"
        if windows:
            now += f"; {run} of {windows} windows"
        if step > said or (event.type == "completed" and now != told):
            said, told = step, now
            out.print(now, markup=False)
