"""What can be told of a message that is no event: whose image it was meant to be.

A message on the ingest topic that cannot be used would leave a hole in its job, which would then
never end: as much as names the job and the image becomes the image's rejection.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, Final

from pydantic import ValidationError

from frond.contracts.carried import EVENTS, structured_data
from frond.contracts.envelope import in_words
from frond.contracts.errors import JobRejected
from frond.contracts.events import MOST_IMAGES, ImageRejected, ImageUploaded
from frond.contracts.ids import JOB_ID_PATTERN, image_id, parse_s3_uri
from frond.contracts.reasons import Reason

_MOST_IMAGE: Final = 2048
_MOST_NAME: Final = 1024
_MOST_DETAIL: Final = 1000
# a zero byte and a schema's number, which serializers of a schema registry put before their JSON
_REGISTRY_PREFIX: Final = 5


def salvage(
    value: bytes | None, headers: Iterable[tuple[str, bytes]] = (), error: str = ""
) -> ImageRejected | None:
    """The rejection of the image that an unusable message names.

    Args:
        error: what was wrong, where the message's fields do not tell.

    Returns:
        BAD_IMAGE_URI or BAD_REQUEST; None if the message names no job or no image, or is no news
        of an image. Its id is that of the image as it stands in the rejection: the message's own,
        made encodable and at most 2048 characters long. It can always be encoded. Nothing is
        raised, whatever the bytes.
    """
    data = _object(value)
    if data is None or not _may_be_an_image(headers) or data.get("image") is None:
        return None
    job_id = data.get("job_id")
    if not isinstance(job_id, str) or not re.fullmatch(JOB_ID_PATTERN, job_id):
        return None
    image = _bounded(_text(data["image"]), _MOST_IMAGE)
    name, size = data.get("name"), data.get("job_size")
    whole = isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= MOST_IMAGES
    reason, what = _why(data, error)
    return ImageRejected(
        job_id=job_id,
        image_id=image_id(job_id, image),
        image=image,
        name=_bounded(_text(name) if isinstance(name, str) and name else _last(image), _MOST_NAME),
        job_size=size if whole else None,
        reason=reason,
        detail=encodable(what)[:_MOST_DETAIL],
    )


def addresses(value: bytes | None, of: ImageRejected) -> ImageUploaded | None:
    """The image's event with as much of the message as says whom to tell of the job's end."""
    data = _object(value) or {}

    def text(field: str) -> str | None:
        found = data.get(field)
        fits = isinstance(found, str) and found == encodable(found) and len(found) <= _MOST_IMAGE
        # empty is left out, as in a message that can be read
        return (found or None) if fits else None

    webhook, email = text("webhook_url"), text("email")
    if not webhook and not email:
        return None
    return ImageUploaded.model_construct(
        job_id=of.job_id, image=of.image, webhook_url=webhook, email=email, tenant=text("tenant")
    )


def encodable(text: str) -> str:
    """The text without lone surrogates, which no UTF-8 message can hold."""
    return text.encode("utf-8", "replace").decode()


def _object(value: bytes | None) -> dict[str, Any] | None:
    if value is None:
        return None
    data = _json(value)
    if data is None and value.startswith(b"\x00"):
        data = _json(value[_REGISTRY_PREFIX:])
    return (structured_data(data) or data) if isinstance(data, dict) else None


def _json(value: bytes) -> Any:
    try:
        return json.loads(value.decode(json.detect_encoding(value), "replace"))
    except (ValueError, RecursionError):
        return None


def _may_be_an_image(headers: Iterable[tuple[str, bytes]]) -> bool:
    types = [v.decode("utf-8", "replace") for k, v in headers if k.lower() == "ce_type"]
    # a type that nobody knows is a mistake in the type, and the image is waited for all the same
    return not types or types[-1] == ImageUploaded.TYPE or types[-1] not in EVENTS


def _text(value: object) -> str:
    if isinstance(value, str):
        return encodable(value)
    try:
        return json.dumps(value)
    except RecursionError:
        return ""


def _bounded(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    # two long texts that differ late are not one image
    mark = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text[: most - 17]}…{mark}"


def _last(image: str) -> str:
    return image.rstrip("/").rsplit("/", 1)[-1] or image


def _why(data: dict[str, Any], error: str) -> tuple[Reason, str]:
    image = data["image"]
    again = "Correct it, and send the image in another job."
    if not isinstance(image, str):
        return (
            Reason.BAD_IMAGE_URI,
            "The message's field image is no text. Write s3://bucket/path/to/raster.tif.",
        )
    try:
        parse_s3_uri(image)
    except JobRejected as e:
        return Reason.BAD_IMAGE_URI, e.detail
    try:
        ImageUploaded.model_validate(data)
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "value"
        return (
            Reason.BAD_REQUEST,
            f"The message's field {field} cannot be used: {in_words(first)}. {again}",
        )
    except RecursionError:
        return Reason.BAD_REQUEST, f"The message is nested too deeply. {again}"
    return Reason.BAD_REQUEST, f"The message cannot be used: {error[:600] or 'unreadable'}. {again}"
