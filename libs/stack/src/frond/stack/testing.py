"""What tests need of a shared stack: names of their own, and an empty bucket at the end."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from frond.stack.aio import run_blocking
from frond.stack.endpoints import Endpoints


def new_prefix() -> str:
    """A topic prefix that no other test has, such as ``t3f9a1c-``."""
    return f"t{secrets.token_hex(3)}-"


def delete_topics(bootstrap: str, prefix: str) -> None:
    """Delete every topic whose name begins with the prefix."""

    async def delete() -> None:
        from aiokafka.admin import AIOKafkaAdminClient
        from aiokafka.errors import KafkaError

        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=15_000)
        try:
            async with asyncio.timeout(30):
                await admin.start()
                mine = [t for t in await admin.list_topics() if t.startswith(prefix)]
                if mine:
                    await admin.delete_topics(mine)
        except (KafkaError, TimeoutError):
            pass  # leftovers of a test on a broker that is about to go
        finally:
            await admin.close()

    run_blocking(delete)


@contextmanager
def fresh_bucket(endpoints: Endpoints) -> Iterator[str]:
    """A new bucket, emptied and removed at the end."""
    from minio import Minio
    from minio.deleteobjects import DeleteObject

    client = Minio(
        endpoints.s3_endpoint.split("://", 1)[1],
        endpoints.access_key,
        endpoints.secret_key,
        secure=endpoints.s3_endpoint.startswith("https"),
        region="us-east-1",
    )
    name = f"t-{secrets.token_hex(6)}"
    client.make_bucket(name)
    try:
        yield name
    finally:
        there = (
            DeleteObject(o.object_name or "") for o in client.list_objects(name, recursive=True)
        )
        list(client.remove_objects(name, there))
        for upload in client._list_multipart_uploads(name).uploads:
            client._abort_multipart_upload(name, upload.object_name, upload.upload_id or "")
        client.remove_bucket(name)


def environment(endpoints: Endpoints, prefix: str, bucket: str) -> dict[str, str]:
    """The FROND_* variables of services that use this broker, prefix and bucket."""
    return {
        **endpoints.env(),
        "FROND_TOPIC_PREFIX": prefix,
        "FROND_S3_BUCKET": bucket,
        # receivers of webhooks are the tests' own, on loopback
        "FROND_EGRESS_ALLOW": "127.0.0.0/8,::1",
    }
