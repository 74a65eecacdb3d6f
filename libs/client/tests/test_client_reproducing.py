"""What differs between two runs, once the new ids are taken for the old."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from frond.client import Client, FrondClientError, reproducing
from frond.client.cli import app
from frond.client.reproducing import differing_bytes, differing_rows, renamed
from frond.contracts.jobs import ModelRef
from frond.contracts.plan import ImagePlan, RasterSource, WindowGrid


def ids_of(old: str, new: str) -> dict[bytes, bytes]:
    return renamed(
        ({"job_id": old, "generator": "frond 1.1"}, {"image_id": "a" * 32}),
        ({"job_id": new, "generator": "frond 1.10"}, {"image_id": "b" * 32}),
    )


IDS = ids_of("job-1", "job-1-again")


@settings(deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [b'"job-1"', b"a" * 32, b"aaaa", b"{", b"-again", b"bbb", b'"', b"job", b"job-1", b'1"']
        )
        | st.binary(max_size=9)
    ),
    piece=st.integers(1, 40),
)
def test_only_ids_may_differ(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], piece: int
) -> None:
    """A file, and itself with the new ids in place of the old: the same, however it is cut."""
    folder = tmp_path_factory.mktemp("d")
    old, new = folder / "old", folder / "new"
    renewed = {o: n for n, o in IDS.items()}
    other = b" ".join(renewed.get(p, p) for p in parts)
    old.write_bytes(reproducing._sub(other, IDS))
    new.write_bytes(other)
    before, reproducing._PIECE = reproducing._PIECE, piece  # type: ignore[misc]
    try:
        assert differing_bytes(old, new, IDS) == ""
    finally:
        reproducing._PIECE = before  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b'{"job":"job-1","n":1}', b'{"job":"job-1-again","n":1}', ""),
        (b'{"job":"job-1","n":1}', b'{"job":"job-1-again","n":2}', "byte 19: was"),
        (b"[1,2", b"[1,2]", "byte 4: one of them ends"),
        (b"a" * 3_000_000 + b"x", b"a" * 3_000_000 + b"y", "byte 3000000: was"),
        (b"", b"", ""),
    ],
)
def test_the_first_byte_that_differs_is_told(
    tmp_path: Path, old: bytes, new: bytes, told: str
) -> None:
    """With what is around it on both sides."""
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    found = differing_bytes(tmp_path / "old", tmp_path / "new", IDS)
    assert found.startswith(told) and bool(found) == bool(told)


FILE = """{"info":{"description":"Detections of job JOB","frond":{"generator":"frond VERSION",
"job_id":"JOB"}},"images":[{"id":1,"file_name":"survey","uri":"s3://frond/uploads/survey-2026/a.tif",
"frond:id":"IMAGE"}],"categories":[{"id":1,"name":"palm"}],"annotations":[{"id":1,"bbox":[1,2,3,4]},
{"id":2,"bbox":[1,survey,3,4]}],"model":"frond 1.10","of":"IMAGE/2"}"""


@pytest.mark.parametrize("old", ["survey-2026", "survey", "palm", "1", "a", "job", "bbox"])
@pytest.mark.parametrize("new", ["survey", "survey-2026", "palm", "2", "a", "job", "survey-2026-2"])
def test_a_job_may_be_called_anything(tmp_path: Path, old: str, new: str) -> None:
    """As a part of an image's address, its name, a class or a number: whatever is the same stays so,
    and a number that changed is told."""
    if old == new:
        return
    before, after = tmp_path / "old", tmp_path / "new"
    text = FILE.replace("JOB", old).replace("VERSION", "1.1").replace("IMAGE", "a" * 32)
    again = FILE.replace("JOB", new).replace("VERSION", "1.10").replace("IMAGE", "b" * 32)
    before.write_text(text)
    after.write_text(again)
    assert differing_bytes(before, after, ids_of(old, new)) == ""
    after.write_text(again.replace("[1,2,3,4]", "[2,2,3,4]"))
    assert "bbox" in differing_bytes(before, after, ids_of(old, new))


def test_a_job_that_somebody_else_has_deleted(client: Client, service: Any) -> None:
    """Is gone, as it was to be; what was compared is told all the same."""
    reproducing.drop(client, "again")
    service.trouble = lambda r: httpx.Response(403, json={"detail": "not yours"})
    with pytest.raises(FrondClientError, match="not yours"):
        reproducing.drop(client, "again")


IMAGES = [{"uri": "s3://b/k.tif", "name": "k.tif", "reason": None, "status": "completed",
           "image_id": "a" * 32, "plan_digest": "d" * 32}]  # fmt: skip
SUMMARY: dict[str, Any] = {
    "job_id": "old", "model": {"name": "m", "digest": "0" * 64}, "thresholds": {"score": 0.4},
    "images": IMAGES,
}  # fmt: skip


@pytest.mark.parametrize("end", [httpx.ReadError("gone"), httpx.Response(503), KeyboardInterrupt()])
def test_a_new_job_that_is_left_open(client: Client, service: Any, end: Any) -> None:
    """Its id is told before it has an image; where nobody answers any more, so is how to go on. It is
    not deleted."""

    def trouble(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/images"):
            return None
        assert told == ["job-1"]
        if isinstance(end, BaseException):
            raise end
        return cast(httpx.Response, end)

    told: list[str] = []
    service.trouble = trouble
    with pytest.raises((FrondClientError, KeyboardInterrupt)) as caught:
        reproducing.begin(client, SUMMARY, IMAGES, began=told.append)
    assert told == ["job-1"]
    is_told = isinstance(caught.value, FrondClientError)
    assert is_told == ("go on with --as job-1." in str(caught.value))
    assert {r.method for r in service.seen} == {"POST"}


def test_a_new_job_whose_images_are_refused(client: Client, service: Any) -> None:
    """Nothing of it stays, and nobody is told to go on."""
    service.trouble = lambda r: httpx.Response(
        403 if r.url.path.endswith("/images") else 201, json={"detail": "no", "job_id": "job-1"}
    )
    with pytest.raises(FrondClientError, match=r"^no$"):
        reproducing.begin(client, SUMMARY, IMAGES)
    assert service.seen[-1].method == "DELETE"


def there(job_id: str, service: Any, **answers: httpx.Response) -> None:
    """Let a service have two jobs of one image: ``old``, and this one, which has ended as ``old`` did."""
    stands = {
        "job_id": job_id, "status": "successful", "outcome": "completed", "finished": "now",
        "images": {"expected": 1, "received": 1, "running": 0, "completed": 1, "failed": 0},
        "windows": {"total": 1, "done": 1, "skipped": 0, "failed": 0}, "progress": 100,
    }  # fmt: skip
    summary, image = SUMMARY | {"generator": "frond 1"}, {"image": IMAGES[0]["uri"]}
    found: dict[tuple[str, str], dict[str, Any]] = {
        ("POST", "/jobs"): {"job_id": job_id},
        ("POST", f"/jobs/{job_id}/images"): {"images": []},
        ("GET", f"/status/{job_id}"): stands,
        ("GET", f"/jobs/{job_id}/images"): {"images": [image], "next_cursor": None},
    }
    for job in ("old", job_id):
        found["GET", f"/jobs/{job}/results/summary.json"] = summary | {"job_id": job}
        found["GET", f"/jobs/{job}/results/images/{'a' * 32}/"] = {"files": []}
    found["GET", f"/jobs/old/results/images/{'a' * 32}/plan.json"] = {"thresholds": {"score": 0.4}}

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.method == "DELETE":
            return httpx.Response(204)
        if (special := answers.get(request.method.lower())) is not None:
            return special
        told = found.get((request.method, request.url.path))
        return None if told is None else httpx.Response(200, json=told)

    service.trouble = answer


def test_images_that_cannot_be_sent_as_they_came(client: Client, service: Any) -> None:
    """By the ingest topic an image may have thresholds of its own, and a longer name; one that asked for
    another model was turned down. None of them is sent: they would differ for that alone."""
    plans = {"same": {"score": 0.4, "nms_iou": None}, "own": {"score": 0.9}, "long": {"score": 0.4}}
    for image_id, thresholds in plans.items():
        plan = json.dumps({"thresholds": thresholds}).encode()
        service.results[f"images/{image_id}/plan.json"] = plan
    images = [
        {"image_id": i, "name": "n" * 501 if i == "long" else i, "status": "completed",
         "reason": None}
        for i in plans
    ] + [
        {"image_id": "", "name": "k", "status": "failed", "reason": reason}
        for reason in ("conflict", "object-missing", "not-a-raster")
    ]  # fmt: skip
    found = reproducing.again_of(client, SUMMARY | {"images": images})
    assert [o["image_id"] or o["reason"] for o in found.images] == ["same", "not-a-raster"]
    assert (found.no_part, found.own_way) == (2, 2)
    with pytest.raises(FrondClientError, match="nothing to reproduce"):
        reproducing.begin(client, SUMMARY, [])


def test_a_job_is_not_compared_with_itself(client: Client, service: Any) -> None:
    """Every byte would be the same, and it would be deleted."""
    there("old", service)
    with pytest.raises(FrondClientError, match="the one to be reproduced"):
        reproducing.begin(client, SUMMARY, IMAGES, "old")
    assert service.seen == []


def test_a_job_that_is_there_must_be_of_the_same_settings(client: Client, service: Any) -> None:
    """Also one that has ended: the service is asked, which knows its model, thresholds and addresses."""
    refusal = {"detail": "Job 'third' is there already, with another model."}
    there("third", service, post=httpx.Response(409, json=refusal))
    with pytest.raises(FrondClientError, match="another model"):
        reproducing.begin(client, SUMMARY, IMAGES, "third")
    asked = json.loads(service.seen[-1].content)
    assert (asked["job_id"], asked["model"]) == ("third", f"m@{'0' * 64}")
    assert "DELETE" not in {r.method for r in service.seen}


@pytest.mark.parametrize("was_there", [True, False])
def test_only_what_the_command_began_is_deleted(
    client: Client, service: Any, monkeypatch: pytest.MonkeyPatch, was_there: bool
) -> None:
    """A job that was there is compared, and stays, whosever it is; stderr says so."""
    there("third", service)
    answer, unknown = service.trouble, iter([] if was_there else [httpx.Response(404, json={})])

    def trouble(request: httpx.Request) -> httpx.Response | None:
        first = next(unknown, None) if request.url.path == "/status/third" else None
        return first or answer(request)

    service.trouble = trouble
    monkeypatch.setattr("frond.client.Client", lambda: client)
    done = CliRunner().invoke(app, ["reproduce", "old", "--as", "third"])
    assert done.exit_code == 0, done.output
    assert "every byte is the same" in done.stdout
    assert ("DELETE" in {r.method for r in service.seen}) is not was_there
    assert ("frond delete third" in done.stderr) is was_there


def parquet(path: Path, image: str, scores: list[float], head: str = "v") -> Path:
    table = pa.table({"id": [f"{image}/{n}" for n in range(len(scores))], "score": scores})
    pq.write_table(table.replace_schema_metadata({"k": f"{head} {image}"}), path)
    return path


def test_rows_of_parquet(tmp_path: Path) -> None:
    """Ids may differ, values and heads may not; the first row that does is told."""
    old = parquet(tmp_path / "old", "a" * 32, [0.5, 0.25])
    assert differing_rows(old, parquet(tmp_path / "1", "b" * 32, [0.5, 0.25]), IDS) == ""
    told = differing_rows(old, parquet(tmp_path / "2", "b" * 32, [0.5, 0.75]), IDS)
    assert told == "row 1, score: was 0.25, is 0.75"
    assert "2 rows were, 1 are" in differing_rows(
        old, parquet(tmp_path / "3", "b" * 32, [0.5]), IDS
    )
    told = differing_rows(old, parquet(tmp_path / "4", "b" * 32, [0.5, 0.25], "w"), IDS)
    assert told == "their heads differ"
    # a new job that is called as a word of the head
    named = ids_of("job-1", "v")
    assert differing_rows(old, parquet(tmp_path / "6", "b" * 32, [0.5, 0.25]), named) == ""
    assert "row 0, id" in differing_rows(old, parquet(tmp_path / "5", "c" * 32, [0.5, 0.25], "v"),
                                         {**IDS, b"v " + b"c" * 32: b"v " + b"a" * 32})  # fmt: skip


def test_where_a_copy_lies_is_no_difference(client: Client, service: Any) -> None:
    """The plan of an image that is read by a tiled copy names the copy, which lies in its job; a plan
    that differs in more keeps its digest."""
    plans = {
        job: ImagePlan(
            job_id=job, image_id=job * 32, image="s3://b/k.png", name="k.png", checksum="sent",
            source=RasterSource(
                uri=f"s3://f/jobs/{job}/cog.tif", etag="made", size=9, bands=(1,), dtype="uint8",
                width=width, height=600,
            ),
            grid=WindowGrid(width=width, height=600, size=512, margin=64),
            model=ModelRef(name="m", digest="0" * 64), chunks=1,
        )
        for job, width in (("a", 900), ("b", 900), ("c", 800))
    }  # fmt: skip
    rows = {}
    for job, plan in plans.items():
        service.results[f"images/{plan.image_id}/plan.json"] = plan.model_dump_json().encode()
        rows[job] = {"image_id": plan.image_id, "plan_digest": plan.plan_digest}
    a, b = (plans[j].plan_digest.encode() for j in "ab")
    assert a != b
    assert reproducing._plans(client, ("a", rows["a"]), ("b", rows["b"])) == {b: a}
    # of a version that wrote no digest into the summary
    assert reproducing._plans(client, ("a", {"image_id": "a" * 32}), ("b", rows["b"])) == {b: a}
    assert reproducing._plans(client, ("a", rows["a"]), ("c", rows["c"])) == {}
