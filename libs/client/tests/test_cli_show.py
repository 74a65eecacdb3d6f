"""A terminal obeys nothing that a file is named."""

from __future__ import annotations

from typing import Any, cast

import pytest

from frond.client import Client
from frond.client.cli import show
from frond.client.cli.app import fail
from frond.client.watching import JobEvent

EVIL = "a\x1b[2J\n\u202eb[red].tif"
SHOWN = "a\\x1b[2J\\x0a\\u202eb[red].tif"
COUNTS = {"expected": 1, "received": 1, "running": 0, "completed": 0, "failed": 1}
FIGURES: dict[str, Any] = {
    "job_id": "j", "status": "successful", "outcome": None, "images": COUNTS,
    "windows": {"total": 0, "done": 0, "skipped": 0, "failed": 0}, "detections": {EVIL: 1},
    "model": {"name": EVIL, "version": EVIL, "digest": "ab" * 32}, "created": None,
    "finished": None, "failures": [{"name": EVIL, "reason": "truncated", "detail": EVIL}],
}  # fmt: skip


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """One row stays one row."""
    show.table(["name", "n"], [(EVIL, 1)], right="n")
    told = capsys.readouterr().out
    assert SHOWN in told and "\x1b" not in told and "\u202e" not in told


def test_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of images, classes and models; `frond status` and the end of `frond watch`."""
    show.job(FIGURES)
    told = capsys.readouterr().out
    assert told.count(SHOWN) == 5 and "\x1b" not in told and "\u202e" not in told


def test_a_job_that_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    """`frond watch` tells each failed image by its name."""

    class Following:
        def watch(self, job_id: str) -> Any:
            yield JobEvent(
                type="image", id="1", data={"status": "failed", "name": EVIL, "detail": EVIL}
            )

        def status(self, job_id: str) -> dict[str, Any]:
            return FIGURES

    show.following(cast(Client, Following()), "j")
    assert capsys.readouterr().err == f"failed: {SHOWN}: {SHOWN}\n"


def test_a_job_of_unknown_size_that_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    """Its size is a question mark until it is sealed, as `frond status` shows it."""

    class Following:
        def watch(self, job_id: str) -> Any:
            images = {"expected": None, "completed": 1, "failed": 1}
            windows = {"total": 0, "done": 0, "skipped": 0, "failed": 0}
            yield JobEvent(type="status", id="1", data={"images": images, "windows": windows})

        def status(self, job_id: str) -> dict[str, Any]:
            return FIGURES

    show.following(cast(Client, Following()), "j")
    assert capsys.readouterr().err == "2 of ? images done, 1 failed\n"


def followed(
    images: list[tuple[int, int | None]], capsys: pytest.CaptureFixture[str],
    windows: list[tuple[int, int]] | None = None,
) -> list[str]:  # fmt: skip
    """What is told of a job's images, done and expected, and its windows; the last at its end."""

    class Following:
        def watch(self, job_id: str) -> Any:
            for n, (done, expected) in enumerate(images):
                figures = {"expected": expected, "completed": done, "failed": 0}
                run, total = windows[n] if windows else (0, 0)
                counts = {"total": total, "done": run, "skipped": 0, "failed": 0}
                kind = "completed" if n == len(images) - 1 else "progress"
                yield JobEvent(type=kind, data={"images": figures, "windows": counts})

        def status(self, job_id: str) -> dict[str, Any]:
            return FIGURES

    show.following(cast(Client, Following()), "j")
    lines = capsys.readouterr().err.splitlines()
    return [told if windows else told.partition(" images")[0] for told in lines]


def test_lines_of_a_job_while_its_size_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    """One at each doubling; from then on at each tenth, and one at the end."""
    growing = [(n, None) for n in range(21)]
    known = [(n, 50) for n in range(21, 51)]
    told = followed([*growing, *known], capsys)
    assert told[:7] == ["0 of ?", "1 of ?", "2 of ?", "4 of ?", "8 of ?", "16 of ?", "21 of 50"]
    assert told[7:] == [f"{n} of 50" for n in (25, 30, 35, 40, 45, 50)]


def test_lines_of_one_large_raster(capsys: pytest.CaptureFixture[str]) -> None:
    """Its windows tell how far it is: a line at each tenth of them, once they are known."""
    windows = [(0, 0), *((n, 40) for n in range(41)), (40, 40)]
    told = followed([(0, 1)] * 42 + [(1, 1)], capsys, windows)
    whole = [f"0 of 1 images done, 0 failed; {n} of 40 windows" for n in range(4, 41, 4)]
    assert told[0] == "0 of 1 images done, 0 failed"
    assert told[1:-1] == whole
    assert told[-1] == "1 of 1 images done, 0 failed; 40 of 40 windows"


@pytest.mark.parametrize("expected", [None, 100])
def test_the_end_of_a_job_is_told(capsys: pytest.CaptureFixture[str], expected: int | None) -> None:
    """Also of one that was stopped between two steps; and once."""
    shown = expected or "?"
    assert followed([(4, expected), (5, expected), (5, expected)], capsys) == [
        f"4 of {shown}", f"5 of {shown}",
    ]  # fmt: skip
    assert followed([(100, expected), (100, expected)], capsys) == [f"100 of {shown}"]


def test_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The one sentence may quote a name."""
    with pytest.raises(BaseException):  # noqa: B017
        fail(f"There is no file {EVIL}.", 2)
    assert f"There is no file {SHOWN}." in capsys.readouterr().err
