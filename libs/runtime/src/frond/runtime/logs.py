"""Structured logs: one JSON object a line, with job, image and trace ids where they are known."""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog
from structlog.typing import FilteringBoundLogger


def configure_logs(service: str, level: str = "INFO") -> None:
    """Send all logging of this process, other libraries' too, to stderr as JSON lines."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)

    def add_service(_: Any, __: str, event: Any) -> Any:
        event.setdefault("service", service)
        return event

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                add_service,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # these tell at INFO what the metrics tell better
    for noisy in ("uvicorn.access", "httpx", "urllib3", "rasterio", "faust", "mode"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # while a broker is away it repeats itself twenty times a second; what matters, it raises
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger; bind ``job_id``, ``image_id`` and ``trace_id`` by keyword."""
    return cast(FilteringBoundLogger, structlog.get_logger(name))
