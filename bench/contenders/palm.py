"""What the others need around one InferenceSession: Frond's decoder, so that all decode alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from frond.models.decoders import WindowDetections, decoder_for
from frond.models.folder import load_manifest


class Palm:
    """A model folder in an ONNX Runtime session with its default options."""

    def __init__(self, folder: str) -> None:
        self.manifest = load_manifest(Path(folder))
        self._decoder = decoder_for(self.manifest)
        self._session = ort.InferenceSession(
            str(Path(folder) / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        self._outputs = [o.name for o in self._session.get_outputs()]
        size = self.manifest.input.size
        self.detect([np.zeros((size, size, 3), np.uint8)])

    def detect(self, windows: list[np.ndarray]) -> list[WindowDetections]:
        """uint8 [size, size, 3] each, run as one batch."""
        values = self._session.run(self._outputs, {"image": np.stack(windows)})
        outputs = dict(zip(self._outputs, values, strict=True))
        return self._decoder.decode(outputs, self.manifest, self.manifest.thresholds)
