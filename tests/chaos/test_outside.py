"""What is looked at from outside is seen: lag, uploads, processes, dead letters; and the exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from chaos import cli, outside, sabotage, workers
from chaos.figures import Figures
from chaos.letters import Letter, Rubbish
from chaos.runner import Run
from frond.bus import DeadLetter
from frond.contracts import topics
from frond.contracts.envelope import Headers, encode
from frond.contracts.events import JobSealed
from frond.contracts.reasons import Reason
from frond.contracts.topics import Topic

RUBBISH = b"\x00 no event"


def test_whoever_has_not_read_to_the_end_lags() -> None:
    """A partition behind its end, or one of which nothing was ever committed; not an empty one."""
    parts = [TopicPartition("t", p) for p in range(4)]
    ends = dict(zip(parts, (5, 5, 3, 0), strict=True))
    stuck = outside.behind("g", {parts[0]: 5, parts[1]: 4, parts[3]: -1}, ends)
    assert stuck == ["g stands at 4 of 5 in t/1", "g stands at 0 of 3 in t/2"]


def test_an_upload_that_was_begun_is_seen(tmp_path: Path) -> None:
    """As the drive has it; a folder that is no drive is an error, not an empty one."""
    with pytest.raises(FileNotFoundError):
        outside.unfinished_uploads(tmp_path)
    root = tmp_path / ".minio.sys" / "multipart"
    (root / "object").mkdir(parents=True)
    assert outside.unfinished_uploads(tmp_path) == []
    (root / "object" / "upload").mkdir()
    assert outside.unfinished_uploads(tmp_path) == ["object/upload"]


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with a helper process, in a process group of its own."""
    # a subshell that waits for its stdin: a program that has just been started has no environment yet
    process = subprocess.Popen(
        ["/bin/sh", "-c", "exec 3<&0; (echo ready; read never <&3) & wait"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "CACHE": str(tmp_path)}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.stdin.close()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_a_helper_that_outlives_its_worker_is_an_orphan(
    leader: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """None while nobody counts as dead, nor one of another installation."""
    leader.kill()
    leader.wait()
    assert list(workers.orphans_of({leader.pid: "tiler"}, str(tmp_path)).values()) == ["tiler"]
    assert workers.orphans_of({}, str(tmp_path)) == {}
    assert workers.orphans_of({leader.pid: "tiler"}, "/another/installation") == {}


def test_the_reconcilers_help_is_read_from_its_log() -> None:
    """In the words that it logs; a line that does not say which job still counts."""
    spec = find_spec("frond.aggregator.reconcile")
    assert spec is not None and spec.origin is not None
    assert "is driven again" in Path(spec.origin).read_text(encoding="utf-8")
    line = b'{"job_id": "j", "event": "a job stands still and is driven again"}'
    assert workers.driven(line) == "j"
    assert workers.driven(b"a job stands still and is driven again") == "?"
    assert workers.driven(b'{"job_id": "j", "event": "job completed"}') == ""


# -- dead letters ----------------------------------------------------------------------------------


@dataclass
class Message:
    """As a Kafka client hands it out."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = 0
    offset: int = 0


def letter(
    topic: Topic = topics.TILED, offset: int = 7, value: bytes = RUBBISH, lies: int = 0, **more: Any
) -> Letter:
    given = DeadLetter(
        **{
            "topic": topic.name, "partition": 3, "offset": offset, "group": "frond.inference",
            "reason": Reason.BAD_REQUEST.value, "detail": "no JSON", "trace_id": "", "attempts": 0,
            "time": "now", "key": b"k", "value": value, "headers": [("dlq_id", b"the sender's")],
            **more,
        }
    )  # fmt: skip
    # made beside the dead letter: what an honest one says at its end
    return Letter.read(Message(given.key, given.value, given.to_headers(), 1, lies))


def sent(topic: Topic = topics.TILED, value: bytes = RUBBISH) -> Rubbish:
    rubbish = Rubbish()
    rubbish.sent(topic, 3, 7, b"k", value, [("dlq_id", b"the sender's")])
    return rubbish


def judged(rubbish: Rubbish, *letters: Letter) -> Figures:
    figures = Figures()
    rubbish.judge(figures, letters)
    return figures


def test_rubbish_has_its_dead_letter() -> None:
    """Copies of it are no more than one; judged again, nothing is new."""
    rubbish = sent()
    figures = judged(rubbish, letter(), letter(lies=1))
    assert figures.good, figures.details
    assert (figures.letters_expected, figures.letters) == (1, 1)
    assert judged(rubbish, letter(), letter(lies=1)) == Figures()


def test_a_missing_dead_letter_is_lost() -> None:
    figures = judged(sent())
    assert (figures.lost, figures.letters_expected, figures.letters) == (1, 1, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"offset": 8}, {"value": b"other bytes"}, {"key": b"another"}, {"headers": []},
        {"group": "frond.tiler"}, {"reason": "internal"}, {"detail": ""},
    ],
)  # fmt: skip
def test_a_dead_letter_that_nobody_asked_for_is_lost(other: dict[str, Any]) -> None:
    """Of another message, or with anything in it that is not as promised."""
    figures = judged(sent(), letter(), letter(lies=1, **other))
    assert (figures.lost, figures.letters) == (1, 1), figures.details


def test_a_dead_letter_under_another_id_is_lost() -> None:
    assert judged(sent(), letter(), replace(letter(lies=1), named=False)).lost == 1


def test_an_event_that_can_be_read_must_not_be_buried() -> None:
    """Nor one on a topic that nobody works on, and neither is missed."""
    event = encode(JobSealed(job_id="j", job_size=1), source="/test")
    rubbish = Rubbish()
    rubbish.sent(topics.UPLOADED, 3, 7, b"k", event.value, event.headers)
    figures = judged(rubbish)
    assert figures.good, figures.details
    buried = letter(topics.UPLOADED, value=event.value, group="frond.tiler", headers=event.headers)
    assert judged(rubbish, buried).lost == 1
    assert judged(sent(topics.STATUS)).good
    assert judged(sent(topics.STATUS), letter(topics.STATUS)).lost == 1


def test_what_was_sent_to_the_dead_letters_is_none() -> None:
    rubbish = Rubbish()
    rubbish.sent(topics.DEADLETTER, 1, 0, b"k", RUBBISH, [])
    assert judged(rubbish, letter()).good
    assert judged(rubbish, letter(lies=1)).lost == 1


# -- sabotage --------------------------------------------------------------------------------------


def test_a_harm_is_noticed_only_as_what_it_is() -> None:
    """Under the figure of its kind, and by name; a misspelt kind is refused."""
    done = sabotage.Harm("byte", "jobs/j/result/coco.json")
    figures = Figures()
    figures.lose("jobs/j/result/coco.json")
    figures.differ("jobs/another/result/coco.json")
    assert not done.noticed(figures)
    figures.differ("jobs/j/result/coco.json has other bytes")
    assert done.noticed(figures)
    assert sabotage.kinds("all") == tuple(sabotage.KINDS)
    assert sabotage.kinds("") == ()
    assert {k.figure for k in sabotage.KINDS.values()} == {"lost", "doubled", "different"}
    with pytest.raises(SystemExit, match="no sabotage"):
        sabotage.kinds("byte,bite")


# -- the exit status -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "status"),
    [
        (Figures(jobs=1), 0), (Figures(), 1), (Figures(jobs=1, lost=1), 1),
        (Figures(jobs=1, doubled=1), 1), (Figures(jobs=1, different=1), 1),
    ],
)  # fmt: skip
def test_the_exit_status(
    figures: Figures, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """0 only if there were jobs and the last three figures are 0; they are the last line."""

    async def ran(*_: object) -> Figures:
        return figures

    monkeypatch.setattr(Run, "all", ran)
    monkeypatch.setattr(sys, "argv", ["chaos", "--seed", "1", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == status
    assert capsys.readouterr().out.splitlines()[-1] == figures.line()
