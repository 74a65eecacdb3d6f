"""The registry by REST: pushed, promoted, rolled back, fetched; and for admins alone."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import httpx
import pytest

from frond.contracts.errors import ModelRejected
from frond.contracts.reasons import Reason
from frond.ingest import modelforms
from frond.ingest.problems import Refused
from frond.models import folder_digest
from frond.models.testing import blob_model


def files_of(folder: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (p.name, p.read_bytes())) for p in sorted(folder.iterdir())]


def everything(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


async def pieces(body: bytes, size: int) -> Any:
    for i in range(0, len(body), size):
        yield body[i : i + size]


def form(*files: tuple[str, bytes], **fields: str) -> bytes:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="f"; filename="{n}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for n, data in files
    ]
    parts += [
        f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode()
        for k, v in fields.items()
    ]
    return b"".join(parts) + b"--x--\r\n"


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_forms_files_arrive_as_they_are(tmp_path: Path, size: int) -> None:
    """However the body is cut; folders below the model's are made."""
    body = form(("model.onnx", b"abc" * 99), ("notes/card.md", b""), alias="staging", why=" so ")
    fields = await modelforms.receive(b"x", pieces(body, size), tmp_path, 1000)
    assert fields == {"alias": "staging", "why": "so"}
    assert (tmp_path / "model.onnx").read_bytes() == b"abc" * 99
    assert (tmp_path / "notes" / "card.md").read_bytes() == b""


@pytest.mark.parametrize(
    "name",
    ["../up", "/etc/x", "a//b", ".hidden", "a/.git/x", "a\\b", "", "x" * 301, "é" * 128, "a\x01b"],
)
async def test_no_file_leaves_the_folder(tmp_path: Path, name: str) -> None:
    """Names that climb, hide or cannot be shown are refused, and nothing is written."""
    inside = tmp_path / "in"
    with pytest.raises(Refused):
        await modelforms.receive(b"x", pieces(form((name, b"1")), 64), inside, 1000)
    assert everything(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (form(("a", b"1" * 1001)), Reason.TOO_LARGE),
        (form(("a", b"1"), ("a", b"2")), Reason.BAD_REQUEST),
        (form(("a", b"1"), ("a/b", b"2")), Reason.BAD_REQUEST),
        (form(("a", b"1"), colour="red"), Reason.BAD_REQUEST),
        (form(("a", b"1"), why="x" * 2001), Reason.TOO_LARGE),
        (form(("a", b"1"))[:-4], Reason.BAD_REQUEST),
    ],
)
async def test_what_is_no_model_is_refused(tmp_path: Path, body: bytes, reason: Reason) -> None:
    """Too large, a file twice, a file that is a folder, an unknown field, a form cut off."""
    with pytest.raises(Refused) as e:
        await modelforms.receive(b"x", pieces(body, 64), tmp_path, 1000)
    assert e.value.reason is reason


async def test_an_impossible_alias_ends_a_form(tmp_path: Path) -> None:
    """As soon as it is read: not after a model of gigabytes. An empty one is none."""
    field = b'--x\r\nContent-Disposition: form-data; name="alias"\r\n\r\n%b\r\n'
    file = form(("model.onnx", b"abc"))
    with pytest.raises(ModelRejected, match="cannot be an alias"):
        await modelforms.receive(
            b"x", pieces(field % b"Not A Name" + file, 16), tmp_path / "in", 99
        )
    assert everything(tmp_path) == []
    fields = await modelforms.receive(b"x", pieces(field % b"" + file, 16), tmp_path, 99)
    assert fields == {"alias": ""}


@pytest.mark.stack
def test_a_version_is_pushed_promoted_and_rolled_back(api: httpx.Client, tmp_path: Path) -> None:
    """Each move is in the history with who and why; asked twice, an alias goes back once."""
    name = f"roofs-{secrets.token_hex(4)}"
    one, two = (blob_model(tmp_path / v, name=name, version=v) for v in ("1", "2"))
    first = api.post("/models", files=files_of(one), data={"why": "to begin with"})
    assert first.status_code == 201, first.text
    assert first.json()["digest"] == folder_digest(one)
    assert api.post("/models", files=files_of(one)).json() == first.json()
    second = api.post("/models", files=files_of(two), data={"alias": "staging"}).json()

    assert api.get(f"/models/{name}/versions/production").json()["version"] == "1"
    where = f"/models/{name}/aliases/production"
    moved = api.put(where, json={"digest": second["digest"][:10], "why": "finds more"})
    assert moved.json() == second
    back = {"now": second["digest"], "why": "too much"}
    assert api.post(f"{where}/rollback", json=back).json() == first.json()
    # once more, as if the answer had been lost
    assert api.post(f"{where}/rollback", json=back).json() == first.json()
    # and by as much of the digest as pages show
    shown = back | {"now": second["digest"][:12]}
    assert api.post(f"{where}/rollback", json=shown).json() == first.json()
    refused = api.post(f"{where}/rollback", json={"now": "production"})
    assert (refused.status_code, refused.json()["reason"]) == (400, Reason.BAD_REQUEST)
    again = {"now": "0" * 64}
    assert api.post(f"{where}/rollback", json=again).status_code == 409
    assert api.post(f"{where}/rollback", json={}).status_code == 422

    listed = api.get(f"/models/{name}").json()
    assert listed["versions"] == {first.json()["digest"]: "1", second["digest"]: "2"}
    moves = listed["aliases"]["production"]["moves"]
    assert [(m["version"], m["why"]) for m in moves] == [
        ("1", "too much"), ("2", "finds more"), ("1", "to begin with"),
    ]  # fmt: skip
    assert all(m["who"] for m in moves)


@pytest.mark.stack
def test_a_versions_files_are_fetched(api: httpx.Client, tmp_path: Path) -> None:
    """The bytes that were pushed, with ranges; what is no file of it is not found."""
    name = f"roofs-{secrets.token_hex(4)}"
    folder = blob_model(tmp_path / "m", name=name)
    digest = api.post("/models", files=files_of(folder)).json()["digest"]
    at = f"/models/{name}/versions/{digest[:12]}"
    assert api.get(at).json()["files"] == {
        p.name: p.stat().st_size for p in sorted(folder.iterdir())
    }
    whole = (folder / "model.onnx").read_bytes()
    assert api.get(f"{at}/files/model.onnx").content == whole
    part = api.get(f"{at}/files/model.onnx", headers={"Range": "bytes=3-8"})
    assert (part.status_code, part.content) == (206, whole[3:9])
    for missing in ("other", "../../aliases/production.json", "%2e%2e/x"):
        assert api.get(f"{at}/files/{missing}").status_code == 404


@pytest.mark.stack
@pytest.mark.parametrize("name", ["%2e%2e", "no%0aname", "a@b", "%00", "blob%0a"])
def test_names_that_cannot_be(api: httpx.Client, name: str) -> None:
    """No name reaches another object of the store."""
    for ask in (
        api.get(f"/models/{name}"),
        api.get(f"/models/{name}/versions/production"),
        api.put(f"/models/{name}/aliases/production", json={"digest": "0" * 64}),
        api.post(f"/models/{name}/aliases/production/rollback", json={"now": "0" * 64}),
        api.put(f"/models/{name}/shadow", json={"version": "production"}),
        api.delete(f"/models/{name}/shadow"),
    ):
        assert 400 <= ask.status_code < 500
    answer = api.put("/models/blob/aliases/no%0a", json={"digest": "0" * 64})
    assert answer.json()["reason"] == Reason.BAD_REQUEST


@pytest.mark.stack
def test_a_folder_that_is_no_model_changes_nothing(api: httpx.Client) -> None:
    """The sentence says what is missing, and the list stays as it was."""
    before = api.get("/models").json()
    answer = api.post("/models", files=[("f", ("model.onnx", b"x"))])
    assert answer.status_code == 422
    assert "model.yaml" in answer.json()["detail"]
    assert api.get("/models").json() == before


@pytest.mark.stack
def test_only_admins_change_models(door: Any, api: httpx.Client, tmp_path: Path) -> None:
    """Whoever may make jobs may look at models, and no more."""
    key = api.post("/keys", json={"name": "worker"}).json()["key"]
    with httpx.Client(base_url=api.base_url, headers={"Authorization": f"Bearer {key}"}) as worker:
        assert worker.get("/models/blob").status_code == 200
        sent = files_of(blob_model(tmp_path / "m", version="9"))
        for refused in (
            worker.post("/models", files=sent),
            worker.put("/models/blob/aliases/production", json={"digest": "0" * 64}),
            worker.post("/models/blob/aliases/production/rollback", json={"now": "0" * 64}),
            worker.put("/models/blob/shadow", json={"version": "staging"}),
            worker.delete("/models/blob/shadow"),
            worker.get("/models/blob/versions/production/files/model.onnx"),
        ):
            assert refused.status_code == 403
