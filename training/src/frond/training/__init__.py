"""Training as part of the product: ``python -m frond.training palm|landcover``.

A kind of model is a sub-package (``palm``, ``landcover``) of these modules:

``config``    ``Settings``, a :class:`frond.training.config.Config` with fields of its own
``data``      ``prepare(config, folder)``: the data as training wants it, seeded, with digests
``task``      ``make(config, prepared) -> frond.training.loop.Task``; alone needs torch
``evaluate``  ``evaluate(config, prepared, model_folder) -> figures``; writes them into the card too
"""
