"""The contracts as documents: JSON schemas, an AsyncAPI 3 document, golden events.

``python -m frond.contracts.export DIR`` writes them; ``--check`` only tells whether they are as
they were. All text is deterministic.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from frond.contracts import topics
from frond.contracts.carried import CARRIES, EVENTS
from frond.contracts.events import Event
from frond.contracts.golden import GOLDEN
from frond.contracts.modelspec import ModelManifest

VERSION: Final = "1.0.0"


def schema(event: type[Event]) -> dict[str, Any]:
    """The JSON schema (2020-12) of what a reader of this event may find in its value."""
    out = event.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": event.TYPE, **out}


def input_schema(event: type[Event]) -> dict[str, Any]:
    """The JSON schema of what a sender may put into this event's value."""
    out = event.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": event.TYPE, **out}


def _headers() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "description": "CloudEvents 1.0, binary mode, and W3C trace context.",
        "properties": {
            "ce_specversion": {"const": "1.0"},
            "ce_id": text,
            "ce_source": text,
            "ce_type": text,
            "ce_time": {"type": "string", "format": "date-time"},
            "ce_subject": {
                **text,
                "description": "the job's id; of drift, the model's digest; of training, "
                "the run's id",
            },
            "content-type": {"const": "application/json"},
            "traceparent": text,
        },
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the public topics."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for topic in topics.ALL:
        if not topic.public:
            continue
        carried = CARRIES[topic.name]
        channels[topic.name] = {
            "address": topic.name,
            "description": topic.about,
            "messages": {e.__name__: {"$ref": f"#/components/messages/{e.__name__}"} for e in carried},
            "bindings": {"kafka": {"partitions": topic.partitions, "topicConfiguration": {
                "cleanup.policy": ["compact" if topic.compacted else "delete"],
                "retention.ms": topic.retention_ms,
            }}},
        }  # fmt: skip
        # the application is Frond: it receives what others upload, and sends all else
        action = "receive" if topic is topics.UPLOADED else "send"
        operations[f"{action}-{topic.name}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{topic.name}"},
            "summary": topic.about,
        }
        for event in carried:
            messages[event.__name__] = {
                "name": event.TYPE,
                "title": event.__name__,
                "summary": (event.__doc__ or "").splitlines()[0],
                "contentType": "application/json",
                "headers": {"$ref": "#/components/schemas/CloudEventHeaders"},
                "payload": {
                    "schemaFormat": "application/schema+json;version=draft-2020-12",
                    "schema": {"$ref": f"schemas/{event.TYPE}.json"},
                },
            }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Frond",
            "version": VERSION,
            "description": "Events of Frond. On the ingest topic a message without headers is "
            'legal too; the smallest is {"job_id": "survey-7", "image": "s3://bucket/key.tif"}.',
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": {"CloudEventHeaders": _headers()},
        },
    }


def documents() -> dict[str, str]:
    """Every generated file: its path below ``contracts/`` and its text."""
    out: dict[str, str] = {"asyncapi.yaml": _yaml(asyncapi())}
    for name, cls in EVENTS.items():
        out[f"schemas/{name}.json"] = _text(schema(cls))
        out[f"schemas/{name}.input.json"] = _text(input_schema(cls))
    manifest = ModelManifest.model_json_schema()
    out["schemas/model.yaml.json"] = _text(manifest)
    for label, event in GOLDEN.items():
        data = json.loads(event.model_dump_json(exclude_none=True))
        out[f"golden/{label}.json"] = _text({"ce_type": event.TYPE, "data": data})
    return out


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _yaml(value: Any) -> str:
    # JSON is YAML; this keeps outside publishers' only dependency pydantic
    return "# generated by `python -m frond.contracts.export contracts`\n" + _text(value)


def main(argv: list[str] | None = None) -> int:
    """Write the documents below a folder, or check them."""
    parser = argparse.ArgumentParser(prog="python -m frond.contracts.export")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(argv)
    stale: list[str] = []
    for name, text in documents().items():
        path: Path = args.folder / name
        if name.startswith("golden/") and path.exists():
            continue  # recorded once: a changed golden event would prove nothing
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not args.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    for name in stale:
        sys.stdout.write(("stale: " if args.check else "wrote ") + name + "\n")
    return 1 if args.check and stale else 0


__all__ = ["asyncapi", "documents", "input_schema", "main", "schema"]

if __name__ == "__main__":
    raise SystemExit(main())
