"""The demo's own judgement: it must not call wrong what is right, nor right what is wrong."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from frond.client.demo import compare, overlay, rasters
from frond.client.demo.receiver import receiving
from frond.contracts.signing import tenant_secrets

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NONE = np.empty((0, 4))


def boxes(*centres: tuple[float, float], side: float = 60.0) -> np.ndarray:
    c = np.array(centres, dtype=np.float64).reshape(-1, 2)
    return np.hstack([c - side / 2, c + side / 2])


def found(b: np.ndarray) -> compare.Found:
    return compare.Found(b, np.linspace(0.9, 0.5, len(b)), tuple(range(1, len(b) + 1)))


def test_a_palm_is_found_once() -> None:
    """Two boxes on one palm are one hit and one false find."""
    planted = boxes((100, 100), (300, 100))
    m = compare.match(planted, NONE, found(boxes((101, 99), (105, 100), (700, 700))))
    assert m.planted.tolist() == [0, -1]
    assert m.found.tolist() == [True, False, False]
    s = compare.score([m])
    assert (s.recall, s.precision) == (0.5, 1 / 3)


def test_half_a_crown_off_is_a_miss() -> None:
    planted = boxes((100, 100))
    assert compare.match(planted, NONE, found(boxes((129, 100)))).hits == 1
    assert compare.match(planted, NONE, found(boxes((131, 100)))).hits == 0


def test_cut_crowns_count_neither_way() -> None:
    m = compare.match(boxes((100, 100)), boxes((500, 500)), found(boxes((100, 100), (510, 500))))
    s = compare.score([m])
    assert (s.recall, s.precision, s.found) == (1.0, 1.0, 1)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 2**31))
def test_scores_stay_between_0_and_1(planted: int, detections: int, seed: int) -> None:
    """No palm has two detections and no detection two palms, whatever the boxes."""
    rng = np.random.default_rng(seed)
    a = boxes(*[tuple(p) for p in rng.uniform(0, 300, (planted, 2))])
    b = boxes(*[tuple(p) for p in rng.uniform(0, 300, (detections, 2))])
    m = compare.match(a, NONE, found(b))
    used = [i for i in m.planted.tolist() if i >= 0]
    assert len(used) == len(set(used)) == int(m.found.sum())
    s = compare.score([m])
    assert 0 <= s.recall <= 1
    assert 0 <= s.precision <= 1


SMALL = [
    rasters.Scene("utm.tif", "EPSG:32748", (106.8, -6.7), width=320, height=300, palms=6),
    rasters.Scene("turned.tif", "EPSG:32632", (9.3, 4.1), width=320, height=300, palms=6,
                  rotation=30, dtype="uint16", infrared=True),
    rasters.Scene("mercator.tif", "EPSG:3857", (2.4, 6.6), width=320, height=300, palms=6,
                  dtype="float32", edge="nan"),
    rasters.Scene("degrees.tif", "EPSG:4326", (-87.4, 15.5), width=320, height=300, palms=6,
                  edge="alpha"),
    rasters.Scene("mask.tif", "EPSG:32724", (-39.1, -13.4), width=320, height=300, palms=6,
                  edge="mask"),
    rasters.Scene("nodata.tif", "EPSG:32649", (113.4, 0.6), width=320, height=300, palms=6,
                  edge="nodata"),
]  # fmt: skip


@pytest.mark.parametrize("scene", SMALL, ids=[s.name for s in SMALL])
def test_scenes_are_what_they_say(scene: rasters.Scene, tmp_path: Path) -> None:
    """CRS, dtype, validity and ground size are in the file; planted centres lie in the raster."""
    planted = rasters._write(tmp_path / scene.name, scene, 5)
    with rasterio.open(planted.path) as source:
        assert source.crs.to_string() == scene.crs
        assert source.dtypes[0] == scene.dtype
        data, mask = source.read(1), source.dataset_mask() > 0
        if scene.edge == "nan":
            mask = np.isfinite(data)
        assert bool(mask.all()) == (not scene.edge)
        t = source.transform
        xs, ys = [t.c, t.c + 320 * t.a], [t.f, t.f + 320 * t.d]
        lon, lat = rasterio.warp.transform(source.crs, "EPSG:4326", xs, ys)
    east = (lon[1] - lon[0]) * rasters.METRES_A_DEGREE * np.cos(np.radians(lat[0]))
    metres = float(np.hypot(east, (lat[1] - lat[0]) * 110_574))
    assert metres == pytest.approx(320 * scene.gsd, rel=0.01)
    assert len(planted.centres) == len(planted.boxes)
    if len(planted.boxes):
        assert np.abs(planted.centres - scene.site).max() < 0.001
    for x0, y0, x1, y1 in planted.boxes.astype(int):
        assert mask[y0:y1, x0:x1].all()


def test_the_set_is_as_varied_as_it_says() -> None:
    """24 files: zones north and south, web mercator, degrees, three dtypes, one rotated."""
    crs = {s.crs for s in rasters.SCENES}
    assert len(rasters.SCENES) + 2 == 24
    assert {"EPSG:3857", "EPSG:4326"} < crs
    assert {c[:8] for c in crs} >= {"EPSG:326", "EPSG:327"}
    assert {s.dtype for s in rasters.SCENES} == {"uint8", "uint16", "float32"}
    assert {s.edge for s in rasters.SCENES} == {"", "nodata", "alpha", "mask", "nan"}
    assert sum(bool(s.rotation) for s in rasters.SCENES) == 1
    assert set(overlay.SHOWN) <= {s.name for s in rasters.SCENES}


def test_the_picture_can_be_drawn(tmp_path: Path) -> None:
    """Whatever was found or missed, there is a picture of the stated size."""
    panels = []
    for scene in SMALL:
        planted = rasters._write(tmp_path / scene.name, scene, 5)
        detections = found(boxes((40, 40), (-20, 500)))
        m = compare.match(planted.boxes, planted.ignored, detections)
        panels.append(overlay.Panel(planted, detections, m))
    sheet = overlay.contact_sheet(panels, "12 palms", "drawn", [("x.tif", "Why? " * 90)])
    overlay.save(sheet, tmp_path / "overlay.png")
    assert sheet.width == overlay.GAP + 3 * (overlay.PANEL[0] + overlay.GAP)


def post(url: str, body: bytes, secret: str, *, spoil: bytes = b"") -> int:
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "1", "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("1", now, body.decode()),
    }  # fmt: skip
    request = urllib.request.Request(url, body + spoil, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return e.code


def test_the_receiver_believes_only_what_is_signed() -> None:
    """A wrong secret or changed bytes are refused; another job's webhook is not taken for ours;
    a tenant's is signed with the tenant's own."""
    body = json.dumps({"data": {"job_id": "ours"}}).encode()
    other = json.dumps({"data": {"job_id": "theirs"}}).encode()
    with receiving(SECRET) as receiver:
        receiver.job_id = "ours"
        assert post(receiver.url, body, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD") == 401
        assert post(receiver.url, body, SECRET, spoil=b" ") == 401
        assert post(receiver.url, other, SECRET) == 200
        assert not receiver.arrived.is_set()
        assert post(receiver.url, body, SECRET) == 200
        assert receiver.arrived.is_set()
        assert receiver.verified
    acme = json.dumps({"data": {"job_id": "ours", "tenant": "acme"}}).encode()
    with receiving(f"{SECRET} whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD") as receiver:
        receiver.job_id = "ours"
        for wrong in (SECRET, tenant_secrets(SECRET, "other")):
            assert post(receiver.url, acme, wrong) == 401
        for odd in (b"no JSON", b"[]", b'{"data": 1}'):
            assert post(receiver.url, odd, SECRET) in (401, 500)
        assert not receiver.arrived.is_set()
        assert post(receiver.url, acme, tenant_secrets(SECRET, "acme")) == 200
        assert receiver.verified
    with receiving("") as receiver:
        assert post(receiver.url, body, SECRET) == 500
        assert not receiver.verified
