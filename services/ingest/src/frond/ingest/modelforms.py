"""A model as a multipart form: its files, written into a folder as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from frond.contracts.reasons import Reason
from frond.ingest.multipart import FormReader, PartBegan, PartData
from frond.ingest.problems import Refused
from frond.models.registry import check_alias

ALIAS: Final = "alias"
FIELDS: Final = (ALIAS, "why")
_MAX_FIELD: Final = 2000
_MAX_FILES: Final = 200
_MAX_NAME: Final = 255  # bytes that a file system takes
_PIECE: Final = 1 << 20


async def receive(
    boundary: bytes, body: AsyncIterator[bytes], folder: Path, most_bytes: int
) -> dict[str, str]:
    """Write a form's files below ``folder``, each under its own filename; returns its fields.

    Raises:
        Refused: no such form, too many bytes or files, or a filename that would leave the folder.
        ModelRejected: the alias cannot be one; its field may come before gigabytes.
    """
    form, fields = FormReader(boundary), dict[str, str]()
    field: str | None = None
    path, buffer, value, size, files = folder, bytearray(), bytearray(), 0, 0

    async def written() -> None:
        data = bytes(buffer)
        buffer.clear()
        await asyncio.to_thread(_append, path, data)

    async for piece in body:
        for step in form.feed(piece):
            if isinstance(step, PartBegan):
                field, value = _field(step), bytearray()
                if step.filename is not None:
                    path, files = folder / _name(step.filename), files + 1
                    if files > _MAX_FILES or path.exists():
                        raise Refused(
                            Reason.BAD_REQUEST,
                            f"A model has at most {_MAX_FILES} files, each once.", status=422,
                        )  # fmt: skip
            elif isinstance(step, PartData):
                into = buffer if field is None else value
                into += step.data
                size += len(step.data)
                if len(value) > _MAX_FIELD:
                    raise Refused(Reason.BAD_REQUEST, f"Field {field} is too long.", status=422)
                if size > most_bytes:
                    raise Refused(
                        Reason.TOO_LARGE, f"A model may have {most_bytes} bytes here. Its operator "
                        "sets FROND_MAX_MODEL_BYTES.",
                    )  # fmt: skip
                if len(buffer) >= _PIECE:
                    await written()
            elif field is None:
                await written()
            else:
                text = fields[field] = value.decode("utf-8", "replace").strip()
                if field == ALIAS and text:
                    check_alias(text)
    form.finish()
    return fields


def _field(part: PartBegan) -> str | None:
    """A field's name; None for a file."""
    if part.filename is not None:
        return None
    if part.field not in FIELDS:
        raise Refused(
            Reason.BAD_REQUEST,
            f"There is no field {part.field[:100]!r}. Fields are {', '.join(FIELDS)}; files carry "
            "a filename.",
            status=422,
        )
    return part.field


def _name(filename: str) -> str:
    """A path below the folder, as it is; hidden files are no part of a model."""
    parts = filename.split("/")
    if len(filename) > 300 or not filename.isprintable() or "\\" in filename or any(
        part.startswith(".") or not part or len(part.encode()) > _MAX_NAME for part in parts
    ):  # fmt: skip
        raise Refused(
            Reason.BAD_REQUEST,
            f"{filename[:100]!r} cannot be the name of a model's file. Files are model.onnx, "
            "model.yaml and what lies beside them.",
            status=422,
        )
    return filename


def _append(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)
    except (NotADirectoryError, FileExistsError, IsADirectoryError):
        raise Refused(
            Reason.BAD_REQUEST, f"{path.name!r} is a file and a folder at once.", status=422
        ) from None
