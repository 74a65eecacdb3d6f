"""``frond-inference``: the service's process."""

from __future__ import annotations


def main() -> None:
    """Run until SIGTERM."""
    # here, because reader processes import this module, and need none of it
    from frond.inference.settings import InferenceSettings
    from frond.inference.wiring import Inference
    from frond.runtime import serve

    settings = InferenceSettings.read()
    inference = Inference(settings)
    serve("inference", settings, [inference.consume_chunks], make_app=inference.app)


if __name__ == "__main__":
    main()
