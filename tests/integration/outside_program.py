"""A program written against the contracts alone: it imports nothing of Frond.

It puts rasters into the bucket, publishes the smallest legal messages, and prints the completed
event of its job. Arguments: bootstrap, endpoint, access key, secret key, bucket, topic prefix,
job id, files…
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

from confluent_kafka import Consumer, Producer
from minio import Minio

bootstrap, endpoint, access, secret, bucket, prefix, job, *files = sys.argv[1:]
assert not any(name.split(".")[0] == "frond" for name in sys.modules)

store = Minio(urlsplit(endpoint).netloc, access, secret, secure=False)
producer = Producer({"bootstrap.servers": bootstrap})
for file in map(Path, files):
    store.fput_object(bucket, f"outside/{file.name}", str(file))
    message = {"job_id": job, "image": f"s3://{bucket}/outside/{file.name}", "job_size": len(files)}
    producer.produce(f"{prefix}frond.uploaded.v1", json.dumps(message))
assert producer.flush(30) == 0

consumer = Consumer(
    {"bootstrap.servers": bootstrap, "group.id": f"outside-{job}", "auto.offset.reset": "earliest"}
)
consumer.subscribe([f"{prefix}frond.completed.v1"])
while True:
    got = consumer.poll(1.0)
    if got is None or got.error():
        continue
    data = json.loads(got.value())
    if data["job_id"] == job:
        headers = {k: v.decode() for k, v in got.headers()}
        print(json.dumps({"headers": headers, "data": data}))
        break
consumer.close()
