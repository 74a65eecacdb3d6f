"""A model that runs: an ONNX Runtime session, or a server's model, fitted to its manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from frond.contracts.errors import FrondError, ModelRejected
from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.models.decoders import (
    Decoder,
    WindowDetections,
    WindowResult,
    decoder_for,
    detections_of,
    names_read,
)
from frond.models.folder import MODEL_FILE, bad_model, folder_digest, load_manifest
from frond.models.load_errors import first_line, load_words
from frond.models.machine import cores
from frond.models.remote import RemoteModel, declared_input

Arrays = dict[str, NDArray[Any]]

_log = logging.getLogger(__name__)

PROVIDERS: Final = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
"""Tried in this order, as far as the installed ONNX Runtime has them."""

DEFAULT_BATCH: Final = 8
"""Windows a run where neither the manifest nor the graph says: larger ones gained nothing on CPUs."""

DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
}
# every run of one configuration must give the same bits: no algorithm is chosen by a stopwatch
_OPTIONS: Final[dict[str, dict[str, str]]] = {
    "CUDAExecutionProvider": {
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",
    },
}


class ModelSession:
    """A loaded model. Runs full batches only, so that a window's result depends on nothing but
    the window, its batch and the configuration; see ``frond.models.tuning`` for what lifts that.

    ``prepare``, ``infer`` and ``decode`` may run in any thread.

    Attributes:
        manifest: of the model.
        batch: windows a run, constant for a model, graph and configuration.
        free_batch: whether another batch could be chosen.
        threads: of a run that has the CPU to itself.
        concurrency: how many runs at once its windows are done fastest with; see :meth:`share`.
        rows_alike: whether a window may share a run with any others: nothing in its result says so.
        sizes_alike: whether a run may have fewer windows than a batch: nothing in its result says so.
        layout: of the windows that :meth:`prepare` takes: ``CHW`` or ``HWC``.
        providers: that the session really uses, the first one first.
        remote: whether a server runs it (``server`` in the manifest).

    Args:
        folder: holds ``model.onnx``, unless a server runs the model.
        manifest: the folder's own where None.
        providers: ONNX Runtime's names, in order of preference; those not available are left out. The
            first ones are passed over, with a warning in the log, where they do not run the graph.
        threads: of one run; 0 takes one for each core that this process may use.
        batch: where neither manifest nor graph says.
        cache_dir: where TensorRT keeps its engines, so that one machine builds each only once.
        servers: base URLs of those that may run a model; None: any, as on one's own machine.

    Raises:
        ModelRejected: BAD_MODEL: the graph cannot be read, does not fit its manifest, or gives
            nonsense for a sample; or its server may not be asked.
        ModelUnavailable: its server does not answer; :meth:`infer` and :meth:`run` raise it too.
    """

    def __init__(
        self,
        folder: Path,
        manifest: ModelManifest | None = None,
        *,
        providers: Sequence[str] = PROVIDERS,
        threads: int = 0,
        batch: int = DEFAULT_BATCH,
        cache_dir: Path | None = None,
        servers: Sequence[str] | None = None,
    ) -> None:
        self.manifest = manifest or load_manifest(folder)
        self._decoder: Decoder = decoder_for(self.manifest)
        self.remote = self.manifest.server is not None
        chain = offered = _offered(providers)
        why = "ONNX Runtime left it out"
        while True:
            self._open = partial(open_graph, folder / MODEL_FILE, chain, cache_dir=cache_dir)
            try:
                self._load(threads, batch, servers)
            except ModelRejected as e:
                # a wheel offers providers whose libraries or devices may not be there, and one may
                # take a graph, and fail at its first run
                if self.remote or len(chain) == 1:
                    raise
                chain, why = chain[1:], e.detail
            else:
                break
        if self.remote:
            return
        # what is loaded beside it, see share, is to give the same bytes
        self._open = partial(open_graph, folder / MODEL_FILE, self.providers, cache_dir=cache_dir)
        if passed_over := [p for p in offered if p not in self.providers]:
            _log.warning(
                "the model %s runs with %s; %s was asked for and does not run it: %s",
                self.manifest.name, self.providers[0], ", ".join(passed_over), why,
            )  # fmt: skip

    def _load(self, threads: int, batch: int, servers: Sequence[str] | None) -> None:
        server = self.manifest.server
        self._graph: Any = (
            RemoteModel(self.manifest.name, server, servers, declared_input(self.manifest))
            if server is not None
            else self._open(threads=threads)
        )
        self._beside, self.concurrency = self._graph, 1
        self.providers: tuple[str, ...] = tuple(self._graph.get_providers())
        spec = self.manifest.input
        self.layout: Literal["CHW", "HWC"] = "CHW" if spec.layout == "NCHW" else "HWC"
        self._input, self._image_only, fixed = self._fit_input()
        self.batch = self._fit_batch(fixed, batch)
        said = self.manifest.input.batch or fixed
        self.free_batch = said is None and not self._decoder.per_image
        self.threads = threads or cores()
        self.rows_alike = self.sizes_alike = False
        given = [o.name for o in self._graph.get_outputs()]
        self._outputs = names_read(self._decoder, self.manifest, given)
        size, bands = spec.size, len(self.manifest.bands)
        self._window = (bands, size, size) if self.layout == "CHW" else (size, size, bands)
        self._gain, self._bias = self._affine()
        self._try_out()

    def prepare(self, windows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The graph's input for 1 to ``batch`` windows: normalised, filled up to a full batch unless
        ``sizes_alike``.

        Args:
            windows: uint8, each [bands, size, size] or [size, size, bands] (see ``layout``); views
                are fine, nothing is written to them.
        """
        if not 1 <= len(windows) <= self.batch:
            raise ValueError(f"{len(windows)} windows for a batch of {self.batch}")
        rows = len(windows) if self.sizes_alike else self.batch
        out = np.empty((rows, *self._window), self.manifest.input.dtype)
        for slot, window in zip(out, windows, strict=False):
            if window.shape != self._window:
                raise ValueError(f"a window of {window.shape}; the model takes {self._window}")
            if self._gain is None:
                slot[...] = window
            elif out.dtype == np.float32:
                np.multiply(window, self._gain, out=slot, dtype=np.float32)
                if self._bias is not None:
                    slot += self._bias
            else:
                scaled = window.astype(np.float32) * self._gain
                slot[...] = scaled if self._bias is None else scaled + self._bias
        out[len(windows) :] = out[len(windows) - 1]
        return out[0] if self._image_only else out

    def share(self, concurrency: int) -> None:
        """Have the runs that go on beside others share the cores.

        Most graphs leave cores idle where one thread waits for another: as many runs as there are
        cores, a thread each, do more windows a second. The graph is loaded once more for it, with
        one pool of threads for all of its runs: ONNX Runtime counts the caller's among them, and
        here each run has a caller's of its own.
        """
        at_most = min(cores(), concurrency * self.threads)
        threads = max(1, at_most - concurrency + 1)
        same = concurrency == 1 or threads == self.threads
        self._beside = self._graph if same else self._open(threads=threads)
        self.concurrency = concurrency

    def infer(self, prepared: NDArray[Any], windows: int, *, beside: bool = False) -> Arrays:
        """Run the graph; those of its outputs that the decoder reads, cut to the first ``windows`` rows.

        Args:
            beside: other runs go on at the same time.

        Raises:
            ModelRejected: INFERENCE_FAILED is the caller's word for it: the run itself failed.
        """
        graph = self._beside if beside else self._graph
        try:
            values = graph.run(self._outputs, {self._input: prepared})
        except FrondError:
            raise
        except Exception as e:  # ONNX Runtime's errors have no common base but this
            raise bad_model(
                f"The model {self.manifest.name} could not be run: {first_line(e)}{self._one_at_a_time()}"
            ) from e
        outputs = dict(zip(self._outputs, values, strict=True))
        if self._decoder.per_image:
            return outputs
        for name, value in outputs.items():
            rows = len(prepared)
            if not isinstance(value, np.ndarray) or value.ndim == 0 or len(value) != rows:
                shape = getattr(value, "shape", type(value).__name__)
                raise bad_model(
                    f"The model {self.manifest.name}: for {rows} windows the output {name!r} "
                    f"has shape {shape}; its first axis must be the batch.{self._one_at_a_time()}"
                )
        return {name: value[:windows] for name, value in outputs.items()}

    def run(self, windows: Sequence[NDArray[Any]]) -> Arrays:
        """:meth:`prepare`, then :meth:`infer`."""
        return self.infer(self.prepare(windows), len(windows))

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], thresholds: ModelThresholds
    ) -> Sequence[WindowResult]:
        """What the outputs say, one entry a window: of the type of the manifest's task.

        Raises:
            ModelRejected: BAD_MODEL: the outputs are not what the decoder reads, or not finite.
        """
        return self._decoder.decode(outputs, self.manifest, thresholds)

    def detect(
        self, windows: Sequence[NDArray[Any]], thresholds: ModelThresholds | None = None
    ) -> list[WindowDetections]:
        """Any number of windows, start to end, through a detection model."""
        found: list[WindowDetections] = []
        for i in range(0, len(windows), self.batch):
            part = windows[i : i + self.batch]
            told = self.decode(self.run(part), thresholds or self.manifest.thresholds)
            found += detections_of(told)
        return found

    def _fit_input(self) -> tuple[str, bool, int | None]:
        """The input's name, whether it takes one image without a batch axis, its fixed batch."""
        name, spec = self.manifest.name, self.manifest.input
        inputs = {i.name: i for i in self._graph.get_inputs()}
        if len(inputs) != 1:
            raise bad_model(
                f"The model {name} takes {len(inputs)} inputs ({', '.join(inputs)}); Frond gives "
                "it one, the image. Export it with the others as constants."
            )
        wanted = spec.name or next(iter(inputs))
        if wanted not in inputs:
            raise bad_model(
                f"The model {name} has no input {wanted!r}; its input is {next(iter(inputs))!r}."
            )
        node = inputs[wanted]
        dtype = DTYPES.get(node.type, node.type)
        if dtype != spec.dtype:
            raise bad_model(
                f"The model {name} takes {dtype} input, but model.yaml says {spec.dtype}. "
                "Change input.dtype."
            )
        shape: list[int | str | None] = list(node.shape)
        image_only = len(shape) == 3 and self._decoder.per_image
        if len(shape) != 4 and not image_only:
            raise bad_model(f"The model {name} takes an input of {len(shape)} axes, not 4.")
        batch = None if image_only else shape.pop(0)
        size, bands = spec.size, len(self.manifest.bands)
        asked = (bands, size, size) if self.layout == "CHW" else (size, size, bands)
        if any(isinstance(have, int) and have != want
               for have, want in zip(shape, asked, strict=True)):  # fmt: skip
            raise bad_model(
                f"The model {name} takes windows of {_shape(shape)}, but model.yaml says "
                f"{_shape(asked)} ({spec.layout}: {bands} bands of {size}×{size}). "
                "Change input.size, input.layout or bands."
            )
        return wanted, image_only, batch if isinstance(batch, int) else None

    def _fit_batch(self, fixed: int | None, default: int) -> int:
        said = self.manifest.input.batch
        if self._decoder.per_image:
            if (fixed or 1) != 1 or (said or 1) != 1:
                raise bad_model(
                    f"The model {self.manifest.name}: the decoder {self._decoder.name} reads one "
                    "image a run. Export the graph with batch 1 and leave out input.batch."
                )
            return 1
        if fixed is not None and said is not None and fixed != said:
            raise bad_model(
                f"The graph of {self.manifest.name} is fixed to a batch of {fixed}, but model.yaml "
                f"says {said}. Change input.batch."
            )
        return said or fixed or default

    def _affine(self) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """(x·scale − mean) / std as x·gain + bias, shaped to spread over a window."""
        norm, bands = self.manifest.normalization, len(self.manifest.bands)
        std = np.broadcast_to(np.asarray(norm.std, np.float64), (bands,))
        mean = np.broadcast_to(np.asarray(norm.mean, np.float64), (bands,))
        gain, bias = norm.scale / std, -mean / std
        if (gain == 1).all() and (bias == 0).all():
            return None, None
        if self.manifest.input.dtype == "uint8":
            raise bad_model(
                f"The model {self.manifest.name} takes uint8, which cannot be normalised. Leave "
                "out normalization, or export the model with float32 input."
            )
        shape = (bands, 1, 1) if self.layout == "CHW" else (1, 1, bands)
        spread = gain.astype(np.float32).reshape(shape)
        return spread, (bias.astype(np.float32).reshape(shape) if bias.any() else None)

    def _one_at_a_time(self) -> str:
        """What to try where a batch fails that nobody but Frond chose."""
        if not self.free_batch or self.batch == 1:
            return ""
        return " Where it takes one window at a time, set input.batch to 1."

    def sample(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A window of noise, as :meth:`prepare` takes it."""
        return rng.integers(0, 256, self._window, dtype=np.uint8)

    def _try_out(self) -> None:
        """One run on a fixed sample, through the decoder: nonsense shows before a job does."""
        sample = self.sample(np.random.default_rng(20_24))
        found = self.decode(self.run([sample]), self.manifest.thresholds)
        if len(found) != 1:
            raise bad_model(
                f"The model {self.manifest.name} gave results for {len(found)} windows, not for 1."
            )


def open_graph(
    path: Path,
    providers: Sequence[str] = PROVIDERS,
    threads: int = 0,
    cache_dir: Path | None = None,
) -> ort.InferenceSession:
    """ONNX Runtime's session of a file, whatever it holds; arguments as of :class:`ModelSession`.

    Raises:
        ModelRejected: BAD_MODEL: it cannot be loaded with these providers.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    # spinning threads would take the cores from the readers between two runs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = [(p, _options(p, path.parent, cache_dir)) for p in _offered(providers)]
    try:
        # its own way of going on knows neither the session's chain nor these options
        return ort.InferenceSession(str(path), options, providers=wanted, enable_fallback=0)
    except Exception as e:  # ONNX Runtime's errors have no common base but this
        raise bad_model(f"ONNX Runtime cannot load {path.name}: {load_words(path, e)}") from e


def _offered(providers: Sequence[str]) -> Sequence[str]:
    available = ort.get_available_providers()
    return [p for p in providers if p in available] or [PROVIDERS[-1]]


def _options(provider: str, folder: Path, cache_dir: Path | None) -> dict[str, str]:
    if provider == "TensorrtExecutionProvider" and cache_dir is not None:
        timings = cache_dir / "tensorrt"
        # ONNX Runtime knows an engine by names in the graph alone, and weights are in it: those of
        # another version of the model would be taken for this one's
        engines = timings / folder_digest(folder)
        engines.mkdir(parents=True, exist_ok=True)
        return {
            "trt_engine_cache_enable": "1",
            "trt_timing_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_path": str(timings),
        }
    return dict(_OPTIONS.get(provider, {}))


def _shape(shape: Sequence[Any]) -> str:
    return "×".join(str(n) for n in shape)


__all__ = [
    "DEFAULT_BATCH",
    "DTYPES",
    "PROVIDERS",
    "ModelRejected",
    "ModelSession",
    "open_graph",
]
