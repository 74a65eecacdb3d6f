"""The client against the REST contract: what it sends, what it waits out, what it gives up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from frond.client import Client, FrondClientError, NotReachable, Progress
from frond.client.transfer import local_files


def test_an_upload_sends_every_byte_once_and_seals(
    client: Client, service: Any, rasters: list[Path]
) -> None:
    """Names go through the URL unharmed, the key goes along, and the job is sealed once."""
    told: list[Progress] = []
    began: list[str] = []
    job = client.upload(rasters, "survey-7", progress=told.append, began=began.append)
    assert job == "survey-7"
    assert began == ["survey-7"]
    assert service.images == {p.name: p.read_bytes() for p in rasters}
    assert service.sealed == 1
    assert {r.headers["authorization"] for r in service.seen} == {"Bearer key-1"}
    puts = [r for r in service.seen if r.method == "PUT"]
    # a service that gets the length can refuse before the first byte
    assert all("content-length" in r.headers for r in puts)
    assert all("transfer-encoding" not in r.headers for r in puts)
    size = sum(p.stat().st_size for p in rasters)
    assert told[-1] == Progress(files=3, files_done=3, bytes=size, bytes_done=size)


def test_what_is_asked_for_is_what_is_sent(
    client: Client, service: Any, rasters: list[Path]
) -> None:
    import json

    client.upload(
        rasters[:1], model="palms@staging", thresholds={"score": 0.4}, webhook_url="http://x/y",
        email="a@b.example",
    )  # fmt: skip
    assert json.loads(service.seen[0].content) == {
        "model": "palms@staging", "thresholds": {"score": 0.4}, "webhook_url": "http://x/y",
        "email": "a@b.example",
    }  # fmt: skip


def test_a_service_that_is_away_for_a_while_is_waited_for(
    client: Client, service: Any, rasters: list[Path], naps: list[float]
) -> None:
    """503 with Retry-After, then a lost connection, then the answer: the file is sent whole."""
    ends: Iterator[httpx.Response | Exception] = iter(
        [
            httpx.Response(503, headers={"retry-after": "3"}, json={"detail": "Kafka is away."}),
            httpx.ReadError("connection lost"),
        ]
    )

    def trouble(request: httpx.Request) -> httpx.Response | None:
        if request.method != "PUT":
            return None
        end = next(ends, None)
        if isinstance(end, Exception):
            raise end
        return end

    service.trouble = trouble
    told: list[Progress] = []
    client.upload(rasters[:1], progress=told.append)
    assert service.images == {rasters[0].name: rasters[0].read_bytes()}
    assert naps[0] == 3
    assert len(naps) == 2
    # what had to be sent again is not counted twice
    assert told[-1].bytes_done == told[-1].bytes == rasters[0].stat().st_size
    assert max(t.bytes_done for t in told) == told[-1].bytes


def test_the_same_request_keeps_its_idempotency_key(client: Client, service: Any) -> None:
    """A POST whose answer was lost is sent again under its key; another POST has another."""
    lost = [True]

    def trouble(request: httpx.Request) -> httpx.Response | None:
        if lost and request.url.path == "/jobs":
            lost.pop()
            raise httpx.ReadError("lost")
        return None

    service.trouble = trouble
    client.create_job()
    client.create_job()
    keys = [r.headers["idempotency-key"] for r in service.seen]
    assert keys[0] == keys[1] != keys[2]


def test_a_request_that_is_still_under_way_is_waited_for(
    client: Client, service: Any, naps: list[float]
) -> None:
    """An answer was lost; its request, sent again, meets 409 with Retry-After until the first one
    has ended."""
    ends: Iterator[httpx.Response | Exception] = iter(
        [
            httpx.ReadError("lost"),
            httpx.Response(409, headers={"retry-after": "2"}, json={"detail": "Under way."}),
        ]
    )

    def trouble(request: httpx.Request) -> httpx.Response | None:
        end = next(ends, None)
        if isinstance(end, Exception):
            raise end
        return end

    service.trouble = trouble
    assert client.create_job()["job_id"] == "job-1"
    assert len({r.headers["idempotency-key"] for r in service.seen}) == 1
    assert naps[1] == 2


def test_a_replay_beside_another_is_refused_at_once(
    client: Client, service: Any, naps: list[float]
) -> None:
    """409 says that a round is under way, for days perhaps: its Retry-After keeps no other job waiting.
    A service that is away is waited for as ever."""
    ends = iter([503, 409])
    service.trouble = lambda r: httpx.Response(
        next(ends), headers={"retry-after": "30"}, json={"detail": "Being sent once more already."}
    )
    with pytest.raises(FrondClientError, match="already") as caught:
        client.replay_webhooks("survey-7")
    assert caught.value.status == 409
    assert naps == [30]


def test_a_service_that_stays_away_is_given_up(client: Client, service: Any) -> None:
    service.trouble = lambda r: httpx.Response(503, json={"detail": "The store does not answer."})
    with pytest.raises(NotReachable, match="The store does not answer"):
        client.status("survey-7")


def test_an_address_where_nobody_is_is_given_up_soon(
    client: Client, service: Any, naps: list[float]
) -> None:
    """Three tries, not half a minute; the sentence says what to look at."""

    def trouble(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    service.trouble = trouble
    with pytest.raises(NotReachable, match="FROND_API_URL"):
        client.jobs()
    assert len(naps) == 2


def test_a_problem_becomes_an_error_with_its_sentence(client: Client, service: Any) -> None:
    """RFC 9457: detail, reason and trace id come through; nothing is tried again."""
    service.trouble = lambda r: httpx.Response(
        422, headers={"content-type": "application/problem+json"},
        json={"detail": "There is no model 'x'.", "reason": "unknown-model", "trace_id": "ab"},
    )  # fmt: skip
    with pytest.raises(FrondClientError) as caught:
        client.create_job(model="x")
    e = caught.value
    assert (e.detail, e.reason, e.status, e.trace_id) == (
        "There is no model 'x'.", "unknown-model", 422, "ab",
    )  # fmt: skip
    assert len(service.seen) == 1


def test_something_else_than_frond_is_told_apart(client: Client, service: Any) -> None:
    service.trouble = lambda r: httpx.Response(200, text="<html>welcome to nginx</html>")
    with pytest.raises(FrondClientError, match="not Frond"):
        client.status("survey-7")
    service.trouble = lambda r: httpx.Response(500, text="<html>oh</html>")
    with pytest.raises(FrondClientError, match="500"):
        client.status("survey-7")


@pytest.mark.parametrize(
    ("ask", "setting"),
    [
        (lambda c, f: c.jobs(), "FROND_API_URL"),
        (lambda c, f: c.training.list(), "FROND_API_URL"),
        (lambda c, f: c.put_image("survey-7", local_files([f])[0]), "FROND_API_URL"),
        (lambda c, f: c.registry.push(f.parent), "FROND_API_URL"),
        (lambda c, f: c.summary("survey-7"), "FROND_API_URL"),
        (lambda c, f: c.predict(f), "FROND_INFERENCE_URL"),
    ],
)
def test_a_page_in_place_of_an_answer(
    client: Client, service: Any, rasters: list[Path], ask: Callable[..., Any], setting: str
) -> None:
    """A proxy that wants a log-in answers 200 with HTML: told in a sentence wherever JSON is read, with
    the setting to look at. A list, or a number, is no answer either."""
    for page in ("<html>log in</html>", "[]", "7"):
        service.trouble = lambda r, page=page: httpx.Response(200, text=page)
        with pytest.raises(FrondClientError, match=f"not Frond.*{setting}"):
            ask(client, rasters[0])


def test_a_model_is_not_pushed_without_its_weights(
    client: Client, service: Any, tmp_path: Path
) -> None:
    """Hidden files stay here: where the graph keeps weights in one, nothing is sent. A word in its
    metadata, or a file that only looks so, is no such name."""
    entry = b"\x0a\x08location\x12\x06"
    (tmp_path / "model.yaml").write_text("name: m")
    (tmp_path / ".w.bin").write_bytes(b"weights")
    (tmp_path / "model.onnx").write_bytes(b"\x0a\x02" + entry + b".w.bin\x10")
    with pytest.raises(FrondClientError, match=r"keeps weights in '\.w\.bin', a hidden file"):
        client.registry.push(tmp_path)
    assert not service.seen
    service.trouble = lambda _: httpx.Response(200, json={"name": "m"})
    for graph in (b"", entry, entry + b"Berlin", b".w.bin"):
        (tmp_path / "model.onnx").write_bytes(graph)
        assert client.registry.push(tmp_path) == {"name": "m"}
    assert not any(b"weights" in r.content for r in service.seen)


@pytest.mark.parametrize("alias", ["Not A Name", "deadbeef"])
def test_a_model_is_not_sent_for_an_alias_that_cannot_be(
    client: Client, service: Any, tmp_path: Path, alias: str
) -> None:
    """It may have gigabytes, and would be stored for good; without an alias it is sent."""
    (tmp_path / "model.yaml").write_text("name: m")
    with pytest.raises(FrondClientError, match="cannot be an alias"):
        client.registry.push(tmp_path, alias=alias)
    assert service.seen == []
    service.trouble = lambda r: httpx.Response(201, json={"name": "m"})
    assert client.registry.push(tmp_path, alias=None) == {"name": "m"}


def test_a_refused_file_is_named(client: Client, service: Any, rasters: list[Path]) -> None:
    """The error names the file; nothing is sealed."""

    def trouble(request: httpx.Request) -> httpx.Response | None:
        if request.method == "PUT" and "a.tif" in str(request.url):
            return httpx.Response(409, json={"detail": "It is in the job with other bytes."})
        return None

    service.trouble = trouble
    with pytest.raises(FrondClientError, match=r"a\.tif: It is in the job"):
        client.upload(rasters)
    assert service.sealed == 0


def test_an_interrupted_upload_goes_on(client: Client, service: Any, rasters: list[Path]) -> None:
    """Files that were confirmed are not sent again; one that was changed since is."""

    def trouble(request: httpx.Request) -> httpx.Response | None:
        if request.method == "PUT" and "c%231" in str(request.url):
            return httpx.Response(413, json={"detail": "no"})
        return None

    service.trouble = trouble
    client.at_once = 1
    with pytest.raises(FrondClientError):
        client.upload(rasters, "survey-7")  # the largest first: c fails before the others
    service.trouble = lambda r: None
    # now all but one arrive
    fails = [rasters[0].name]
    service.trouble = lambda r: (
        httpx.Response(413, json={"detail": "no"})
        if r.method == "PUT" and fails and fails[0] in str(r.url)
        else None
    )
    with pytest.raises(FrondClientError):
        client.upload(rasters, "survey-7")
    fails.clear()
    rasters[1].write_bytes(b"changed")
    service.seen.clear()
    told: list[Progress] = []
    client.upload(rasters, "survey-7", progress=told.append)
    assert sent(service) == ["a.tif", "b ü.tif"]
    assert service.images["b ü.tif"] == b"changed"
    assert told[-1].files_done == 3


def test_the_same_upload_twice_is_one(client: Client, service: Any, rasters: list[Path]) -> None:
    """Nothing is sent again, and the job, ended or not, is the answer."""
    client.upload(rasters, "survey-7")
    service.seen.clear()
    assert client.upload(rasters, "survey-7") == "survey-7"
    assert not [r for r in service.seen if r.method == "PUT"]


def sent(service: Any) -> list[str]:
    """What was uploaded since ``service.seen`` was cleared, by name."""
    return sorted(r.url.path.partition("/images/")[2] for r in service.seen if r.method == "PUT")


def test_an_upload_to_a_service_that_has_lost_everything(
    client: Client, service: Any, rasters: list[Path]
) -> None:
    """Its job of the same id is another one: what the one before had counts for nothing, also where
    images of the same names are in it."""
    client.upload(rasters, "survey-7")
    service.seen.clear()
    service.created = "2026-01-09T00:00:00.5Z"
    client.upload(rasters, "survey-7")
    assert sent(service) == sorted(p.name for p in rasters)


def test_an_upload_to_a_service_that_has_lost_some_images(
    client: Client, service: Any, rasters: list[Path]
) -> None:
    """Restored from an older copy, its job is the same and lacks an image: that one is sent again
    before the job is sealed."""
    client.upload(rasters, "survey-7")
    service.seen.clear()
    del service.images["a.tif"]
    told: list[Progress] = []
    client.upload(rasters, "survey-7", progress=told.append)
    assert sent(service) == ["a.tif"]
    assert service.seen[-1].url.path.endswith("/seal")
    assert service.images == {p.name: p.read_bytes() for p in rasters}
    assert told[-1].files_done == 3 and told[-1].bytes_done == told[-1].bytes


def test_a_job_that_is_found_to_be_older_is_the_same(
    client: Client, service: Any, rasters: list[Path]
) -> None:
    """A job's beginning is the earliest time that the service has heard of, by others' clocks too."""
    client.upload(rasters, "survey-7")
    service.seen.clear()
    service.created = "2026-01-02T03:04:04.25Z"
    client.upload(rasters, "survey-7")
    assert sent(service) == []


def test_what_is_confirmed_is_looked_up_page_by_page(
    client: Client, service: Any, tmp_path: Path
) -> None:
    """And no further than needed; an upload that begins asks for nothing."""
    folder = tmp_path / "many"
    folder.mkdir()
    files = [folder / f"{n:04}.tif" for n in range(1200)]
    for file in files:
        file.write_bytes(b"x")
    client.upload(files, "survey-7")
    assert not [r for r in service.seen if r.method == "GET"]
    service.images |= {f"z{n:04}.tif": b"" for n in range(3000)}
    service.seen.clear()
    client.upload(files, "survey-7")
    assert sent(service) == []
    assert len([r for r in service.seen if r.method == "GET"]) == 2


def test_a_key_that_may_not_read_sends_again(
    client: Client, service: Any, rasters: list[Path]
) -> None:
    """What cannot be looked up is not taken for there; any other trouble ends the upload unsealed."""
    client.upload(rasters, "survey-7")
    service.trouble = lambda r: httpx.Response(403) if r.method == "GET" else None
    service.seen.clear()
    client.upload(rasters, "survey-7")
    assert sent(service) == sorted(p.name for p in rasters)
    service.trouble = lambda r: httpx.Response(500) if r.method == "GET" else None
    with pytest.raises(FrondClientError):
        client.upload(rasters, "survey-7")
    assert service.sealed == 2


def test_an_upload_that_goes_on_with_more_files(
    client: Client, service: Any, tmp_path: Path
) -> None:
    """Each file keeps the name that it has in the job, whatever it would be called beside the others;
    unless another is called so."""
    paths = [tmp_path / "d" / place for place in ("x/a.tif", "x/b.tif", "y/a.tif", "a.tif")]
    for n, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([n]))
    client.upload(paths[:2], "survey-7")
    client.upload(paths[:3], "survey-7")
    assert {n: b[0] for n, b in service.images.items()} == {"a.tif": 0, "b.tif": 1, "y/a.tif": 2}
    client.upload(paths[2:3], "survey-7")
    assert len(service.images) == 3
    client.upload(paths, "survey-7")
    assert service.images["x/a.tif"] == b"\0" and service.images["a.tif"] == b"\3"


@pytest.mark.parametrize("size", [2_999_999, 3_000_001])
def test_a_file_that_changes_while_it_is_sent(
    client: Client, service: Any, tmp_path: Path, size: int
) -> None:
    """It grew or shrank: told in a sentence that names it, and the job is not sealed."""
    file = tmp_path / "a.tif"
    file.write_bytes(bytes(3_000_000))
    with pytest.raises(FrondClientError, match=r"a\.tif: it changed while it was being sent"):
        client.upload([file], began=lambda _: file.write_bytes(bytes(size)) and None)
    assert service.sealed == 0


class Slow(httpx.BaseTransport):
    """Refuses ``3.tif`` once three others are under way; reads of these a piece before the client has
    heard of that, and then to the end."""

    def __init__(self, service: Any, stopped: Callable[[], bool]) -> None:
        self.service = service
        self.stopped = stopped
        self.begun = threading.Semaphore(0)
        self.pieces: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "PUT":
            return self.service(request)  # type: ignore[no-any-return]
        name = request.url.path.rpartition("/")[2]
        if name == "3.tif":
            for _ in range(3):
                assert self.begun.acquire(timeout=60)
            return httpx.Response(413, json={"detail": "too large"})
        for _ in cast(httpx.SyncByteStream, request.stream):
            self.pieces.append(name)
            self.begun.release()
            self.stopped()
        return httpx.Response(201, json={"name": name})


def test_a_refused_file_ends_those_under_way(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not sent to their ends first, and the error that is told is the refused one's."""
    files = [tmp_path / f"{n}.tif" for n in range(5)]
    for n, file in enumerate(files):
        file.write_bytes(bytes(8_000_000 - n))
    stop = threading.Event()
    monkeypatch.setattr("frond.client.sending.threading", SimpleNamespace(Event=lambda: stop))
    door = Slow(service, lambda: stop.wait(60))
    with (
        Client(
            "http://frond.test", "k", transport=door, journal_dir=tmp_path / "journal"
        ) as client,
        pytest.raises(FrondClientError, match=r"3\.tif: too large"),
    ):
        client.upload(files, "survey-7")
    assert sorted(door.pieces) == ["0.tif", "1.tif", "2.tif"]
    assert service.sealed == 0


def test_pages_are_followed_up_to_the_limit(client: Client, service: Any) -> None:
    assert [j["job_id"] for j in client.jobs(limit=1205)] == [f"job-{n}" for n in range(1205)]
    assert [r.url.params["limit"] for r in service.seen] == ["1000", "205"]


def test_deleting_what_is_not_there_is_told(client: Client, service: Any) -> None:
    """A misspelt name is no deleted job; nor where the tries before were never heard, or turned down."""
    for before in (None, httpx.ConnectError("refused"), httpx.Response(429)):
        service.trouble = once(before)
        with pytest.raises(FrondClientError, match="There is no such job") as caught:
            client.delete("survey-7")
        assert caught.value.status == 404


@pytest.mark.parametrize("before", [httpx.ReadError("lost"), httpx.Response(504)])
def test_a_deletion_whose_answer_was_lost(client: Client, service: Any, before: Any) -> None:
    """That the job is gone at the next try means that it is done."""
    service.trouble = once(before)
    client.delete("survey-7")
    assert [r.method for r in service.seen] == ["DELETE", "DELETE"]


def once(end: Any) -> Callable[[httpx.Request], httpx.Response | None]:
    """Trouble at the first request: an answer, an exception, or None."""
    left = [end]

    def trouble(request: httpx.Request) -> httpx.Response | None:
        now = left.pop() if left else None
        if isinstance(now, Exception):
            raise now
        return cast(httpx.Response | None, now)

    return trouble


def test_predict_sends_the_image_itself(client: Client, service: Any, rasters: list[Path]) -> None:
    service.trouble = lambda r: httpx.Response(200, json={"detections": []})
    assert client.predict(rasters[0], score=0.5, gsd_m=0.2) == {"detections": []}
    request = service.seen[0]
    assert request.url == "http://inference.test/predict?score=0.5&gsd_m=0.2"
    assert request.content == rasters[0].read_bytes()


def test_names_stay_distinct(tmp_path: Path) -> None:
    """Two files of one name are told apart by their folders; the same file twice is one."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tif").write_bytes(b"1")
    paths = [tmp_path / "x/a.tif", tmp_path / "y/a.tif", tmp_path / "x/../x/a.tif"]
    assert [f.name for f in local_files(paths)] == ["x/a.tif", "y/a.tif"]
    assert [f.name for f in local_files(paths[:1])] == ["a.tif"]


def test_a_link_is_called_as_it_is(tmp_path: Path) -> None:
    """By its own name, not by that of what it leads to; two links to one file are two."""
    (tmp_path / "store" / "deep").mkdir(parents=True)
    (tmp_path / "x").mkdir()
    (tmp_path / "store" / "5f3a").write_bytes(b"1")
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).symlink_to(tmp_path / "store" / "5f3a")
    (tmp_path / "flights").symlink_to(tmp_path / "store" / "deep")
    found = local_files([tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "x/../a.tif"])
    assert [f.name for f in found] == ["a.tif", "b.tif"]
    (behind,) = local_files([tmp_path / "flights/../5f3a"])
    assert behind.path.read_bytes() == b"1"
    assert behind.name == "5f3a"


def test_a_name_that_is_not_utf8(client: Client, service: Any, tmp_path: Path) -> None:
    """Told before a job is created; a prediction needs no name."""
    file = tmp_path / "a\udcff.tif"
    file.write_bytes(b"1")
    with pytest.raises(FrondClientError, match=r"a\\udcff\.tif' is not UTF-8"):
        client.upload([file])
    assert service.seen == []
    service.trouble = lambda r: httpx.Response(200, json={"detections": []})
    assert client.predict(file) == {"detections": []}


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FrondClientError, match="There is no file"):
        local_files([tmp_path / "none.tif"])
    with pytest.raises(FrondClientError, match="is a folder"):
        local_files([tmp_path])
    with pytest.raises(FrondClientError, match="no file to upload"):
        local_files([])


def test_the_address_must_be_one() -> None:
    with pytest.raises(FrondClientError, match="http"):
        Client("localhost:8000")


@pytest.mark.parametrize(
    "url",
    ["http://host:80a0", "http://[::1", "http://", "http://:80", "http://a..b", "http://xn--a",
     f"http://{'a' * 64}.test", "http://127.0.0.1:65536", "http://a\0b"],
)  # fmt: skip
def test_an_address_that_is_none(url: str, rasters: list[Path]) -> None:
    """Told in a sentence with the setting that has it, and before anybody is asked."""
    with pytest.raises(FrondClientError, match=r"^FROND_API_URL is .*which is no address"):
        Client(url)
    with (
        Client("http://frond.test", inference_url=url) as client,
        pytest.raises(FrondClientError, match=r"^FROND_INFERENCE_URL is .*which is no address"),
    ):
        client.predict(rasters[0])


@pytest.mark.parametrize("url", ["http://[::1]:8000/", "https://frond.test/v1", "http://é.test"])
def test_an_address_that_is_one(url: str) -> None:
    """Numbers, folders and names in any script are taken."""
    with Client(url) as client:
        assert client.api_url == url.rstrip("/")
