"""The one place that touches minio-py: its client, and how its errors become ours.

minio-py has no public call for conditional puts or for single parts of a multipart upload; the
requests themselves are there under names with an underscore, and the version is pinned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPResponse, IncompleteRead
from traceback import walk_tb
from typing import Any, Final, cast
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.credentials.providers import AssumeRoleProvider, Provider
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.helpers import (
    ObjectWriteResult,
    check_bucket_name,
    check_non_empty_string,
    check_object_name,
)
from urllib3.connection import HTTPConnection, HTTPSConnection

from frond.contracts.errors import FrondError, ObjectMissing, StoreFull, StoreUnavailable

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
_SEND_AT_ONCE: Final = 1 << 17
_FULL: Final = {"XMinioStorageFull", "XMinioDiskFull", "InsufficientStorage", "QuotaExceeded"}
# of another's bucket: what will be so however often one asks. An archived object is seen by HEAD alone
_CLOSED: Final = {
    "AccessDenied", "AllAccessDisabled", "AuthorizationHeaderMalformed", "InvalidObjectState",
    "InvalidRequest", "PermanentRedirect",
}  # fmt: skip
_MISSING: Final = {
    "NoSuchKey", "NoSuchBucket", "NoSuchUpload",
    # names that the store would never hold: nothing is there, however often one asks
    "InvalidObjectName", "InvalidBucketName", "KeyTooLongError", "BadRequest", "MethodNotAllowed",
    "InvalidArgument", "XMinioInvalidObjectName", "XMinioInvalidResourceName",
}  # fmt: skip


_CHECKS: Final = {
    f.__code__ for f in (check_bucket_name, check_object_name, check_non_empty_string)
}
"""Where minio-py looks at names; it says of all else that is wrong the same, ValueError."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where the object store is and who we are there.

    Attributes:
        endpoint: URL, e.g. ``http://127.0.0.1:9000``; any S3-compatible service.
    """

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    region: str = "us-east-1"


class _WholeLines:
    """A response's headers as they arrive: each line ends, and an empty one ends them."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._begun = False

    def readline(self, limit: int = -1) -> bytes:
        line = bytes(self._source.readline(limit))
        # that there is no answer at all, or a line too long, is http.client's to tell
        if (line or self._begun) and not line.endswith(b"\n") and len(line) != limit:
            raise IncompleteRead(line)
        self._begun = True
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


class _WholeResponse(HTTPResponse):
    """One whose line broke off among its headers is an error.

    http.client takes the end of the line for the end of the headers, and without Content-Length
    an object for one of no bytes, without ETag for another one.
    """

    def begin(self) -> None:
        source = self.fp
        self.fp = cast(Any, _WholeLines(source))
        try:
            super().begin()
        finally:
            # None: nothing follows, and it was closed
            if self.fp is not None:
                self.fp = source


class _Connection(HTTPConnection):
    response_class = _WholeResponse


class _TlsConnection(HTTPSConnection):
    response_class = _WholeResponse


class _Plain(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _Tls(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Pieces:
    """Bytes as a file that urllib3 reads by its block size, and from its beginning where it sends them
    again; nothing is copied."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = memoryview(data)
        self._at = 0

    def read(self, size: int = -1) -> memoryview:
        end = len(self._data) if size < 0 else self._at + size
        piece = self._data[self._at : end]
        self._at += len(piece)
        return piece

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        self._at = to
        return to


class _Pool(urllib3.PoolManager):
    """Takes no answer that broke off for a whole one, and sends large bodies piece by piece: a
    socket's deadline is for a whole ``sendall``, and on a slow line a part of an upload would never
    be through within it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pool_classes_by_scheme = {"http": _Plain, "https": _Tls}

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> Any:  # type: ignore[override]
        body = kw.get("body")
        if isinstance(body, bytes | bytearray) and len(body) > _SEND_AT_ONCE:
            kw["body"] = _Pieces(body)
        return super().urlopen(method, url, redirect=redirect, **kw)


class _Frank(_Pool):
    """Tells a store that cannot just now from one that cannot at all: minio-py does not, of keys."""

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> Any:  # type: ignore[override]
        answer = super().urlopen(method, url, redirect=redirect, **kw)
        if answer.status == 429 or (answer.status >= 500 and answer.status != 501):
            raise ServerError(f"HTTP {answer.status}", answer.status)
        return answer


_SHA256: Final = "x-amz-content-sha256"


class S3(Minio):
    """minio-py with the three requests that it keeps to itself."""

    def put_bytes(
        self,
        bucket: str,
        key: str,
        data: bytes,
        headers: dict[str, str],
        *,
        sha256: str | None = None,
    ) -> ObjectWriteResult:
        """One PutObject request, any headers.

        Args:
            sha256: of the data, in hex, where it is known; the store refuses data that have another.
        """
        known = {_SHA256: sha256} if sha256 else {}
        return self._put_object(bucket, key, data, {**headers, **known})

    def _build_headers(
        self, host: str, headers: Any = None, body: bytes | None = None, creds: Any = None
    ) -> tuple[Any, datetime]:
        known = (headers or {}).pop(_SHA256, None)
        if known is None or body is None or self._base_url.is_https:
            return super()._build_headers(host, headers, body, creds)
        # as minio-py has it, which would go over all bytes once more
        built, date = super()._build_headers(host, headers, None, creds)
        return {**built, "Content-Length": str(len(body)), _SHA256: known}, date

    def begin_multipart(self, bucket: str, key: str, headers: dict[str, str]) -> str:
        """Begin a multipart upload; returns its id."""
        return str(self._create_multipart_upload(bucket, key, dict(headers)))

    def put_part(
        self, bucket: str, key: str, upload_id: str, number: int, data: bytes | bytearray
    ) -> str:
        """Upload one part (numbers from 1); returns its ETag."""
        sent = cast(bytes, data)  # what it hands on takes either; its annotation is narrower
        return str(self._upload_part(bucket, key, sent, None, upload_id, number))

    def end_multipart(self, bucket: str, key: str, upload_id: str, parts: list[Any]) -> str:
        """Complete a multipart upload; returns the object's ETag."""
        done = self._complete_multipart_upload(bucket, key, upload_id, parts)
        if not done.etag:
            # S3 says 200 before it knows, and the error in the answer's body
            raise StoreUnavailable(f"completing {key}: the store did not say that it is whole")
        return str(done.etag).strip('"')

    def abort_multipart(self, bucket: str, key: str, upload_id: str) -> None:
        """Drop a multipart upload and its parts."""
        self._abort_multipart_upload(bucket, key, upload_id)


def connect(settings: StoreSettings, credentials: Provider | None = None) -> S3:
    """A client with deadlines on connecting and reading, and a pool that threads may share.

    Args:
        credentials: in place of the settings' keys.
    """
    url = urlsplit(settings.endpoint)
    own = credentials is None
    return S3(
        endpoint=url.netloc,
        access_key=settings.access_key if own else None,
        secret_key=settings.secret_key if own else None,
        credentials=credentials,
        secure=url.scheme == "https",
        region=settings.region,
        http_client=_pool(),
    )


def keys_for_writing(settings: StoreSettings, key: str, seconds: int) -> Provider:
    """Temporary keys (STS AssumeRole) that can write this one object, for an hour at least.

    A URL that is signed with an installation's own keys lets its holder do more than it says: MinIO
    takes headers that nobody signed, so that a part may be "copied" from any object
    (``x-amz-copy-source``), and with an access key's name, which each URL tells, it takes some writes
    without any signature (CVE-2026-40344, CVE-2026-41145). With these it is this object alone.

    Raises:
        StoreUnavailable: no answer.
        NoTemporaryKeys: the store gives none.
    """
    # names of objects hold nothing that is a pattern: see frond.contracts.keys.safe_name
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow", "Action": ["s3:PutObject"],
                "Resource": [f"arn:aws:s3:::{settings.bucket}/{key}"],
            }
        ],
    }  # fmt: skip
    provider = AssumeRoleProvider(
        sts_endpoint=settings.endpoint, access_key=settings.access_key,
        secret_key=settings.secret_key, duration_seconds=seconds, policy=json.dumps(policy),
        region=settings.region, http_client=_pool(_Frank),
    )  # fmt: skip
    with translated("asking for temporary keys"):
        try:
            provider.retrieve()
        except ValueError as e:
            raise NoTemporaryKeys(str(e)) from e
    return provider


class NoTemporaryKeys(FrondError):
    """The object store lends no keys."""


def _pool(kind: type[_Pool] = _Pool) -> _Pool:
    return kind(
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
        maxsize=64,
        blocksize=_SEND_AT_ONCE,
        # of connections that are silent one further is tried: whoever asked is waiting
        retries=urllib3.Retry(
            total=2,
            read=1,
            backoff_factor=0.1,
            status_forcelist=(502, 503, 504),
            # MinIO asks for a minute with every 503, and is ready in a second after a start;
            # whoever called waits an outage out by a rhythm of its own
            respect_retry_after_header=False,
        ),
    )


def code_of(error: BaseException) -> str | None:
    """The S3 error code, if it is an S3 error."""
    return error.code if isinstance(error, S3Error) else None


def _full(error: S3Error) -> bool:
    status = getattr(error.response, "status", 0)
    return status == 507 or error.code in _FULL or "no space left" in str(error.message).lower()


def _closed(error: S3Error) -> bool:
    return error.code in _CLOSED or str(error.code).startswith("KMS.")


def _of_a_name(error: ValueError) -> bool:
    """Whether minio-py refuses a name by itself, or one cannot be sent."""
    if isinstance(error, UnicodeEncodeError):
        return True
    raised = [frame.f_code for frame, _ in walk_tb(error.__traceback__)]
    return raised[-1] in _CHECKS


@contextmanager
def translated(what: str, *, foreign: bool = False, writing: bool = False) -> Iterator[None]:
    """Turn minio-py's and urllib3's errors into ObjectMissing, StoreFull or StoreUnavailable.

    Args:
        writing: one of our own uploads is under way: that it is gone is the store's fault. A MinIO
            whose disk is full answers so to a part that it has no room for.
        foreign: the bucket is not our own: what we may not see there is missing. In our own, being
            refused is a fault of the installation, which is waited out as an outage is.
    """
    try:
        yield
    except S3Error as e:
        if _full(e):
            raise StoreFull(f"{what}: {e.code}: {e.message}") from e
        if writing and e.code == "NoSuchUpload":
            raise StoreUnavailable(f"{what}: the upload is gone") from e
        if e.code in _MISSING or (foreign and _closed(e)):
            raise ObjectMissing(f"{what}: {e.code}") from e
        if e.code == "PreconditionFailed":
            raise
        raise StoreUnavailable(f"{what}: {e.code}: {e.message}") from e
    except (
        urllib3.exceptions.HTTPError, ServerError, InvalidResponseError, OSError,
        # what answers with 200 and no XML is something before the store
        ParseError,
    ) as e:  # fmt: skip
        raise StoreUnavailable(f"{what}: {type(e).__name__}: {e}") from e
    except ValueError as e:
        if _of_a_name(e):
            raise ObjectMissing(f"{what}: {e}") from e
        # an answer that is none of S3's, or in no encoding
        raise StoreUnavailable(f"{what}: {type(e).__name__}: {e}") from e
