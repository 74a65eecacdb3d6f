"""Following a job and fetching its results, over connections that break."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frond.client import Client, FrondClientError, JobEvent
from frond.client.watching import parse_events, within


def figures(status: str, done: int = 0) -> dict[str, Any]:
    return {"job_id": "survey-7", "status": status, "images": {"completed": done}}


def event(number: int, kind: str, data: dict[str, Any]) -> str:
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"


def test_events_are_read_as_the_standard_says() -> None:
    """Comments are heartbeats, several data lines are one, an unfinished event is none."""
    text = (
        'retry: 2000\n\n: still here\n\nid: 4\nevent: image\ndata: {"a":\ndata: 1}\n\n'
        'data: no json\n\nevent:progress\ndata:{}\n\nevent: completed\ndata: {"half'
    )
    assert list(parse_events(text.split("\n"))) == [
        JobEvent("heartbeat"), JobEvent("image", {"a": 1}, "4"), JobEvent("progress", {}, "4"),
    ]  # fmt: skip


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n\r"))))
def test_no_stream_breaks_the_reader(lines: list[str]) -> None:
    for found in parse_events(lines):
        assert isinstance(found.data, dict)


def test_a_broken_stream_goes_on_where_it_broke_off(client: Client, service: Any) -> None:
    """The second request carries Last-Event-ID; no event is lost, none comes twice."""
    service.statuses[:] = [figures("running")]
    service.streams[:] = [
        event(1, "progress", figures("running")) + event(2, "image", {"name": "a.tif"}),
        event(3, "image", {"name": "b.tif"}) + event(4, "completed", figures("successful", 2)),
    ]
    seen = list(client.watch("survey-7"))
    assert [e.type for e in seen] == ["progress", "progress", "image", "image", "completed"]
    asked = [r for r in service.seen if r.url.path.endswith("/events")]
    assert [r.headers.get("last-event-id") for r in asked] == [None, "2"]


def test_without_events_the_status_is_asked_for(
    client: Client, service: Any, naps: list[float]
) -> None:
    """A proxy that swallows event streams: the job is followed all the same."""
    service.statuses[:] = [
        figures("accepted"), figures("running"), figures("running", 1), figures("successful", 2),
    ]  # fmt: skip
    seen = list(client.watch("survey-7"))
    assert [e.type for e in seen] == ["progress", "progress", "completed"]
    assert seen[-1].data["status"] == "successful"


def test_streams_that_bring_nothing_are_given_up(client: Client, service: Any) -> None:
    """Three empty streams in a row, then polling."""
    service.statuses[:] = [figures("running")] * 5 + [figures("successful")]
    service.streams[:] = [": \n\n"] * 9
    assert list(client.watch("survey-7"))[-1].type == "completed"
    assert len([r for r in service.seen if r.url.path.endswith("/events")]) == 3


def test_a_job_that_has_ended_is_not_streamed(client: Client, service: Any) -> None:
    service.statuses[:] = [figures("dismissed")]
    assert [e.type for e in client.watch("survey-7")] == ["completed"]
    assert len(service.seen) == 1


def test_waiting_ends_at_its_time_limit() -> None:
    """Also while nothing but heartbeats come."""
    beats = iter([JobEvent("heartbeat")] * 3)
    with pytest.raises(FrondClientError, match="has not ended within 0 s"):
        list(within(beats, "survey-7", 0.0))


def test_a_download_that_broke_off_goes_on(client: Client, service: Any, tmp_path: Path) -> None:
    """The rest is asked for by range; the file appears when it is whole and right."""
    data = bytes(range(256)) * 40
    service.results["coco.json"] = data
    target = tmp_path / "out" / "coco.json"
    target.parent.mkdir()
    target.with_name("coco.json.part").write_bytes(data[:1000])
    sha256 = client.results("survey-7")[0]["sha256"]
    assert client.download("survey-7", "coco.json", target, sha256=sha256) == target
    assert target.read_bytes() == data
    assert service.seen[-1].headers["range"] == "bytes=1000-"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("before", [b"", b"something else entirely" * 9, b"ab", b"abcdefgh"])
def test_what_lies_there_already_never_spoils_a_download(
    client: Client, service: Any, tmp_path: Path, before: bytes
) -> None:
    """A part of another file, longer or shorter, is found out by the SHA-256."""
    service.results["x.json"] = b"abcdefgh"
    sha256 = client.results("survey-7")[0]["sha256"]
    target = tmp_path / "x.json"
    target.with_name("x.json.part").write_bytes(before)
    client.download("survey-7", "x.json", target, sha256=sha256)
    assert target.read_bytes() == b"abcdefgh"


@pytest.mark.parametrize("before", [b"of another job", b"12345678", b"zz"])
def test_a_part_of_what_nobody_knows_is_not_gone_on_with(
    client: Client, service: Any, tmp_path: Path, before: bytes
) -> None:
    """Where no SHA-256 tells whose it is; also one that is as long as the file."""
    service.results["images/a.tif/classes.tif"] = b"abcdefgh"
    target = tmp_path / "classes.tif"
    target.with_name("classes.tif.part").write_bytes(before)
    client.download("survey-7", "images/a.tif/classes.tif", target)
    assert target.read_bytes() == b"abcdefgh"


def test_what_is_not_there_leaves_no_folder(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FrondClientError):
        client.download("survey-7", "none.json", tmp_path / "out" / "deep" / "none.json")
    assert list(tmp_path.iterdir()) == []


def test_wrong_bytes_are_not_kept(client: Client, service: Any, tmp_path: Path) -> None:
    service.results["x.json"] = b"abcdefgh"
    with pytest.raises(FrondClientError, match="other bytes"):
        client.download("survey-7", "x.json", tmp_path / "x.json", sha256="0" * 64)
    assert list(tmp_path.glob("x*")) == []


def test_a_connection_that_breaks_in_the_middle(
    client: Client, service: Any, tmp_path: Path
) -> None:
    data = b"0123456789" * 1000
    service.results["x.json"] = data
    broken = [True]

    class Breaks(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            yield data[:5000]
            raise httpx.ReadError("lost")

    def trouble(request: httpx.Request) -> httpx.Response | None:
        if broken and request.url.path.endswith("/x.json"):
            broken.pop()
            return httpx.Response(200, stream=Breaks())
        return None

    service.trouble = trouble
    client.download("survey-7", "x.json", tmp_path / "x.json")
    assert (tmp_path / "x.json").read_bytes() == data
