"""The places that each tenant's rasters may lie in, as the operator wrote them down."""

from __future__ import annotations

from typing import NamedTuple

from frond.auth.principal import check_tenant
from frond.contracts.errors import JobRejected
from frond.contracts.ids import parse_s3_uri


class Place(NamedTuple):
    """A folder in a bucket; ``prefix`` ends with a slash, or is empty: all of the bucket."""

    bucket: str
    prefix: str

    def holds(self, bucket: str, key: str) -> bool:
        return bucket == self.bucket and key.startswith(self.prefix)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def places_of(setting: str) -> dict[str, tuple[Place, ...]]:
    """``acme=s3://imagery/acme/,beta=s3://imagery/beta/`` by tenant.

    Raises:
        ValueError: it does not say that; the sentence tells which part.
    """
    found: dict[str, tuple[Place, ...]] = {}
    for item in filter(None, (part.strip() for part in setting.split(","))):
        name, equals, uri = (part.strip() for part in item.partition("="))
        try:
            tenant = check_tenant(name)
            # a folder: what only begins alike is another's
            bucket, key = parse_s3_uri(uri.rstrip("/") + "/x")
        except JobRejected as e:
            raise ValueError(f"{item!r} is no TENANT=s3://bucket/folder/. {e.detail}") from None
        if not equals:
            raise ValueError(f"{item!r} is no TENANT=s3://bucket/folder/.")
        found[tenant] = (*found.get(tenant, ()), Place(bucket, key.removesuffix("x")))
    return found
