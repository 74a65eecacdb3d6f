"""A model that a server runs, by the Open Inference Protocol v2 over HTTP (KServe, Triton, MLServer).

It has what ``ModelSession`` uses of an ONNX Runtime session, so that windows, batches, decoders and
checks are those of a local model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from frond.contracts.modelspec import ModelManifest, ServerSpec, base_url
from frond.models import oip
from frond.models.asking import Asker
from frond.models.folder import bad_model

PROVIDER: Final = "OpenInferenceProtocol"
"""What :meth:`RemoteModel.get_providers` says, in the place of ONNX Runtime's names."""

_log = logging.getLogger(__name__)


def is_allowed(url: str, servers: Sequence[str]) -> bool:
    """Whether a base URL is one of these, or below one. ValueError: one of them is no base URL."""
    origin, path = _place(url)
    return any(
        origin == there and path[: len(above)] == above for there, above in map(_place, servers)
    )


def declared_input(manifest: ModelManifest) -> oip.Tensor | None:
    """The input as ``model.yaml`` has it; None where it does not name it."""
    spec, bands = manifest.input, len(manifest.bands)
    if spec.name is None:
        return None
    window = (bands, spec.size, spec.size)
    if spec.layout == "NHWC":
        window = (spec.size, spec.size, bands)
    return oip.Tensor(spec.name, (spec.batch, *window), oip.datatype_of(spec.dtype))


class RemoteModel:
    """A model on a server. ``run`` may be called from several threads at once.

    Attributes:
        version: of the model on the server, as far as it says; the last one that answered.
        versions: that the server lists.

    Args:
        name: of the model, for sentences.
        servers: base URLs that windows may be sent to; None: to any, as on one's own machine.
        known: the input, for where the server says nothing of it.

    Raises:
        ModelRejected: BAD_MODEL: the server may not be asked, knows no such model or version, or
            answers with what is no answer of the protocol.
        ModelUnavailable: it does not answer in time, or is too busy, or not ready.
    """

    def __init__(
        self,
        name: str,
        server: ServerSpec,
        servers: Sequence[str] | None = None,
        known: oip.Tensor | None = None,
    ) -> None:
        self._name = name
        self._server = server
        if servers is not None and not is_allowed(self._server.url, servers):
            raise bad_model(
                f"The model {self._name} runs on a server that this installation sends nothing to. "
                "Ask whoever runs the installation to add the model's server.url to "
                "FROND_MODEL_SERVERS."
            )
        self.version: str | None = None
        self._path = f"v2/models/{self._server.model}"
        if self._server.version is not None:
            self._path += f"/versions/{self._server.version}"
        self._asker = Asker(name, server, self._path)
        self._binary = self._takes_binary()
        told = self._document(self._path)
        listed = told.get("versions")
        self.versions = tuple(map(str, listed)) if isinstance(listed, list) else ()
        self._check_version()
        try:
            self._inputs = oip.tensors(told.get("inputs") or [], "inputs")
            self._outputs = oip.tensors(told.get("outputs") or [], "outputs")
        except oip.Nonsense as e:
            self._refuse_nonsense(e)
        if not self._inputs:
            if known is None:
                raise bad_model(
                    f"The server says nothing of the inputs of the model {name}. Write its input's "
                    "name into model.yaml (input.name), or declare them on the server."
                )
            self._inputs = (known,)
        if not self._outputs:
            self._outputs = self._seen()
        self._outputs = tuple(o for o in self._outputs if o.readable)
        if not self._outputs:
            raise bad_model(f"The server's model of {self._name} has no output of numbers.")

    def get_inputs(self) -> Sequence[oip.Tensor]:
        """As the server declares them; where it does not, as ``model.yaml`` has them."""
        return self._inputs

    def get_outputs(self) -> Sequence[oip.Tensor]:
        """Those that hold numbers, as the server declares them, or gave them to a sample."""
        return self._outputs

    def get_providers(self) -> Sequence[str]:
        return (PROVIDER,)

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of these names for one input. Raises as the class."""
        outputs = self._infer(names, feeds)
        return [outputs[name] for name in names]

    def _infer(
        self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        ((name, values),) = feeds.items()
        body, headers = oip.request(name, values, names, binary=self._binary)
        given, raw = self._asker.post(f"{self._path}/infer", body, headers)
        try:
            answer = oip.answer(raw, given.get(oip.JSON_LENGTH), names)
        except oip.Nonsense as e:
            self._refuse_nonsense(e)
        self._note_version(answer.version)
        return answer.outputs

    def _takes_binary(self) -> bool:
        if self._server.binary is not None:
            return self._server.binary
        listed = self._document("v2").get("extensions")
        return isinstance(listed, list) and oip.BINARY in listed

    def _seen(self) -> tuple[oip.Tensor, ...]:
        """The outputs of a server that tells nothing of its model's: those it gives for a sample."""
        first = self._inputs[0]
        shape = [n or 1 for n in first.shape]
        if None in first.shape[1:] or not first.readable:
            raise bad_model(
                f"The server says nothing of the outputs of the model {self._name}, and leaves the size "
                "of its input open. Declare them on the server."
            )
        given = self._infer((), {first.name: np.zeros(shape, oip.dtype_of(first.datatype))})
        return tuple(
            oip.Tensor(name, (None,) * value.ndim, oip.datatype_of(value.dtype.name))
            for name, value in given.items()
        )

    def _check_version(self) -> None:
        wanted = self._server.version
        if wanted is not None and self.versions and wanted not in self.versions:
            there = ", ".join(oip.line(v, 50) for v in self.versions[:10])
            raise bad_model(
                f"The server has the model {self._name} in the versions {there}, not {wanted}. "
                "Change server.version, or let it serve that one."
            )

    def _note_version(self, version: str | None) -> None:
        wanted, before = self._server.version, self.version
        if version is None or version == before:
            return
        if wanted is not None and version != wanted:
            raise bad_model(
                f"The server answered for the model {self._name} with version {oip.line(version, 50)}, and "
                f"model.yaml pins {wanted}."
            )
        if before is not None:
            _log.warning(
                "the server of %s runs version %s now, before it was %s; pin server.version to "
                "keep one", self._name, version, before,
            )  # fmt: skip
        self.version = version

    def _document(self, path: str) -> dict[str, Any]:
        try:
            return oip.document(self._asker.get(path))
        except oip.Nonsense as e:
            self._refuse_nonsense(e)

    def _refuse_nonsense(self, e: oip.Nonsense) -> NoReturn:
        raise bad_model(
            f"The server's answer for the model {self._name} is none of the Open Inference Protocol: "
            f"{e}."
        ) from e


def _place(url: str) -> tuple[tuple[str, str, int], list[str]]:
    parts = urlsplit(base_url(url))
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (parts.scheme, parts.hostname or "", port), [p for p in parts.path.split("/") if p]


__all__ = ["PROVIDER", "RemoteModel", "declared_input", "is_allowed"]
