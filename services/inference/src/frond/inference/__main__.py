"""``frond-inference``: the service's process."""

from __future__ import annotations

from frond.inference.settings import InferenceSettings
from frond.inference.wiring import Inference
from frond.runtime import serve


def main() -> None:
    """Run until SIGTERM."""
    settings = InferenceSettings()
    inference = Inference(settings)
    serve("inference", settings, [inference.consume_chunks], make_app=inference.app)


if __name__ == "__main__":
    main()
