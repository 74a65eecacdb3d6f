"""One small job through each door of an installation that runs elsewhere; ``tools/test-docker.sh``
runs it against docker-compose.yml. Where it is comes from the environment, as in ``.frond/env``.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import rasterio
from confluent_kafka import Consumer, Producer
from minio import Minio
from rasterio.transform import from_origin

from frond.client.scenes import palm_scene

ENV = os.environ
BUCKET = ENV.get("FROND_S3_BUCKET", "frond")
DEADLINE_S = 240.0
GSD_M = 0.14


def scene(seed: int) -> bytes:
    """A georeferenced scene with 20 planted palms, as the bytes of a GeoTIFF."""
    pixels, _ = palm_scene(1000, 1200, 20, seed, GSD_M)
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=1200, height=1000, count=3, dtype="uint8", crs="EPSG:32650",
            transform=from_origin(480_000 + seed * 1000, 80_000, GSD_M, GSD_M), compress="deflate",
        ) as raster:  # fmt: skip
            raster.write(pixels.transpose(2, 0, 1))
        return bytes(memory.read())


def by_rest(http: httpx.Client, job: str, files: dict[str, bytes]) -> None:
    """The first door: a multipart upload."""
    answer = http.post(
        "/upload", files=[("files", item) for item in files.items()], data={"job_id": job}
    )
    answer.raise_for_status()


def by_topic(job: str, files: dict[str, bytes]) -> None:
    """The second door: rasters in the bucket, the smallest legal messages on the topic."""
    endpoint = urlsplit(ENV["FROND_S3_ENDPOINT"])
    store = Minio(
        endpoint.netloc, ENV["FROND_S3_ACCESS_KEY"], ENV["FROND_S3_SECRET_KEY"],
        secure=endpoint.scheme == "https",
    )  # fmt: skip
    producer = Producer({"bootstrap.servers": ENV["FROND_KAFKA_BOOTSTRAP"]})
    for name, data in files.items():
        store.put_object(BUCKET, f"outside/{name}", io.BytesIO(data), len(data))
        image = f"s3://{BUCKET}/outside/{name}"
        message = {"job_id": job, "image": image, "job_size": len(files)}
        producer.produce("frond.uploaded.v1", json.dumps(message))
    assert producer.flush(30) == 0, "the broker took not every event"


def completions(jobs: set[str]) -> dict[str, dict[str, object]]:
    """The third door: the completed event of each job."""
    consumer = Consumer(
        {
            "bootstrap.servers": ENV["FROND_KAFKA_BOOTSTRAP"],
            "group.id": f"three-doors-{os.getpid()}",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["frond.completed.v1"])
    found: dict[str, dict[str, object]] = {}
    end = time.monotonic() + DEADLINE_S
    while set(found) < jobs:
        assert time.monotonic() < end, f"no completed event of {jobs - set(found)}"
        message = consumer.poll(1.0)
        if message is not None and not message.error():
            event = json.loads(message.value())
            found[event["job_id"]] = event
    consumer.close()
    return found


def main() -> None:
    run = f"{int(time.time()):x}"
    rest, topic = f"rest-{run}", f"topic-{run}"
    good = {f"scene-{i}.tif": scene(i) for i in range(2)}
    http = httpx.Client(
        base_url=ENV["FROND_API_URL"],
        headers={"Authorization": f"Bearer {ENV.get('FROND_API_KEY', '')}"},
        timeout=60,
        trust_env=False,
    )
    by_rest(http, rest, {**good, "notes.tif": b"these are notes, not a raster\n" * 50})
    by_topic(topic, good)
    events = completions({rest, topic})

    assert events[rest]["outcome"] == "completed_with_errors", events[rest]
    assert events[rest]["images"] == {"expected": 3, "completed": 2, "failed": 1}, events[rest]
    assert events[topic]["outcome"] == "completed", events[topic]
    assert events[topic]["images"] == {"expected": 2, "completed": 2, "failed": 0}, events[topic]
    # the same rasters by another door: the same detections
    assert events[rest]["detections"] == events[topic]["detections"], events
    assert events[topic]["detections"], "planted palms, and nothing was found"

    coco = http.get(f"/jobs/{topic}/results/coco.json").raise_for_status().json()
    assert {Path(i["file_name"]).name for i in coco["images"]} == set(good)
    counted: dict[str, int] = events[topic]["detections"]  # type: ignore[assignment]
    assert len(coco["annotations"]) == sum(counted.values())
    end = time.monotonic() + 60
    while http.get(f"/status/{topic}").raise_for_status().json()["status"] != "successful":
        assert time.monotonic() < end, "ingest does not say that the job is done"
        time.sleep(0.5)
    sys.stdout.write(f"Three doors: {counted} in 2 scenes by each; a text file failed alone\n")


if __name__ == "__main__":
    main()
