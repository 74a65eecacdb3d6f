"""The streaming form parser."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.ingest.multipart import FormReader, PartBegan, PartData, boundary_of
from frond.ingest.problems import Refused

BOUNDARY = b"x-7f3a"
Parts = list[tuple[str, str | None, bytes]]

_text = st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n\x00%'), min_size=1)
_data = st.one_of(
    st.binary(max_size=200),
    # what looks like a boundary and is none
    st.lists(
        st.sampled_from([b"\r\n", b"\r\n--", b"--x-7f3", b"\r", b"-", b"\r\n--x-7f", b"b"])
    ).map(b"".join),
)
_inert = _data.filter(lambda d: b"--" + BOUNDARY not in d)
_parts = st.lists(st.tuples(_text, st.one_of(st.none(), _text), _inert), max_size=5)


def body_of(parts: Parts) -> bytes:
    out = b""
    for name, filename, data in parts:
        out += b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="' + name.encode()
        out += b'"' if filename is None else b'"; filename="' + filename.encode() + b'"'
        out += b"\r\nContent-Type: application/octet-stream\r\n\r\n" + data + b"\r\n"
    return out + b"--" + BOUNDARY + b"--\r\n"


def parse(pieces: list[bytes]) -> Parts:
    form, out = FormReader(BOUNDARY), []
    for piece in pieces:
        for step in form.feed(piece):
            if isinstance(step, PartBegan):
                out.append((step.field, step.filename, b""))
            elif isinstance(step, PartData):
                name, filename, data = out[-1]
                out[-1] = (name, filename, data + step.data)
    form.finish()
    return out


def cut(body: bytes, at: list[int]) -> list[bytes]:
    marks = sorted({0, len(body), *(a % (len(body) + 1) for a in at)})
    return [body[a:b] for a, b in pairwise(marks)]


@settings(max_examples=300, deadline=None)
@given(_parts, st.lists(st.integers(0, 5000), max_size=40))
def test_however_a_body_is_cut_its_files_are_the_same(parts: Parts, at: list[int]) -> None:
    """The pieces in which a body arrives change nothing."""
    assert parse(cut(body_of(parts), at)) == parts


def test_byte_by_byte() -> None:
    """The finest cut there is."""
    parts: Parts = [("file", "a.tif", b"\r\n--x-7f3\r\n--x-7f3b"), ("model", None, b"palm")]
    assert parse([bytes([b]) for b in body_of(parts)]) == parts


@pytest.mark.parametrize("missing", [1, 5, 10, 40])
def test_a_cut_off_body_is_refused(missing: int) -> None:
    """A form without its end is not taken for whole."""
    body = body_of([("f", "a.tif", b"data")])[: -missing - 3]
    with pytest.raises(Refused, match="cut off"):
        parse([body])


@pytest.mark.parametrize(
    "body",
    [b"no form at all", b"--x-7f3a\r\nContent-Type: a/b\r\n\r\ndata\r\n--x-7f3a--\r\n",
     b"--x-7f3a\r\nbad header\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_form_is_refused(body: bytes) -> None:
    """Bytes that are no form give a problem, not an exception of the parser's."""
    with pytest.raises(Refused):
        parse([body])


def test_names_keep_their_quotes_and_scripts() -> None:
    """Browsers escape a quote as %22; other scripts come as UTF-8, or as filename*."""
    form = FormReader(BOUNDARY)
    head = '--x-7f3a\r\nContent-Disposition: form-data; name="f"; filename="пальма %22x%22.tif"'
    (step,) = form.feed(head.encode() + b"\r\n\r\n")
    assert step == PartBegan("f", 'пальма "x".tif')
    form = FormReader(BOUNDARY)
    head = "--x-7f3a\r\nContent-Disposition: form-data; name=f; filename*=utf-8''%D1%8F.tif"
    (step,) = form.feed(head.encode() + b"\r\n\r\n")
    assert step == PartBegan("f", "я.tif")


def test_only_multipart_forms() -> None:
    """Any other content type is a 415."""
    assert boundary_of("multipart/form-data; boundary=abc") == b"abc"
    for other in (None, "application/json", "multipart/mixed; boundary=a"):
        with pytest.raises(Refused) as e:
            boundary_of(other)
        assert e.value.status == 415
