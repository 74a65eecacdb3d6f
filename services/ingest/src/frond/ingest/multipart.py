"""multipart/form-data as a stream of small steps: bytes in, parts' beginnings, data and ends out.

RFC 7578. Nothing here waits or stores: whoever feeds it decides how fast.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from frond.contracts.reasons import Reason
from frond.ingest.problems import Refused

_MAX_HEADERS: Final = 16 << 10
# what browsers escape in a filename (WHATWG HTML, "multipart/form-data encoding algorithm")
_ESCAPED: Final = ((b"%22", b'"'), (b"%0D", b"\r"), (b"%0A", b"\n"))
# RFC 5987: forbidden here by RFC 7578, sent all the same by some clients for other scripts
_EXTENDED: Final = re.compile(rb"filename\*=utf-8''([^;\s]+)", re.IGNORECASE)


class PartBegan(NamedTuple):
    """A part's headers are known. ``filename`` is None for a form field."""

    field: str
    filename: str | None


class PartData(NamedTuple):
    """Some of the current part's bytes."""

    data: bytes


class PartEnded(NamedTuple):
    """The current part is whole."""


Step = PartBegan | PartData | PartEnded


def boundary_of(content_type: str | None) -> bytes:
    """The boundary of a multipart/form-data body. Raises Refused for any other content type."""
    kind, options = parse_options_header(content_type or "")
    if kind != b"multipart/form-data":
        raise Refused(
            Reason.BAD_REQUEST,
            "Send the files as multipart/form-data, as curl -F and HTML forms do.",
            status=415,
        )
    boundary = options.get(b"boundary")
    if not boundary:
        raise Refused(Reason.BAD_REQUEST, "The Content-Type names no boundary.")
    return boundary


class FormReader:
    """Parses one body. The same bytes give the same parts, however they are cut into pieces."""

    def __init__(self, boundary: bytes) -> None:
        self._steps: list[Step] = []
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._header_bytes = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                },
            )
        except FormParserError as e:
            raise Refused(Reason.BAD_REQUEST, f"The boundary cannot be used: {e}") from None

    def feed(self, data: bytes) -> list[Step]:
        """The steps that these bytes complete. Raises Refused when they are no form."""
        self._steps = []
        try:
            self._parser.write(data)
        except FormParserError as e:
            raise Refused(Reason.BAD_REQUEST, f"The form cannot be read: {e}") from None
        return self._steps

    def finish(self) -> None:
        """The body has ended. Raises Refused when the form has not."""
        if self._parser.state != MultipartState.END:
            raise Refused(
                Reason.BAD_REQUEST, "The form is cut off: its closing boundary is missing."
            )

    def _part_begin(self) -> None:
        self._headers = {}
        self._header_bytes = 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._header_bytes += end - start
        if self._header_bytes > _MAX_HEADERS:
            raise Refused(Reason.BAD_REQUEST, "A part's headers are too long.")

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition)
        if kind != b"form-data" or b"name" not in options:
            raise Refused(
                Reason.BAD_REQUEST, "A part of the form has no Content-Disposition with a name."
            )
        filename = options.get(b"filename")
        if filename is not None:
            for code, char in _ESCAPED:
                filename = filename.replace(code, char)
        elif extended := _EXTENDED.search(disposition):
            filename = unquote_to_bytes(extended.group(1))
        self._steps.append(
            PartBegan(
                options[b"name"].decode("utf-8", "replace"),
                None if filename is None else filename.decode("utf-8", "replace"),
            )
        )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if end > start:
            self._steps.append(PartData(data[start:end]))

    def _part_end(self) -> None:
        self._steps.append(PartEnded())
