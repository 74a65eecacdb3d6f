"""The HTTP side: ``POST /predict``."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Annotated

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import Lifespan

from frond.auth import Bodies, Gate, Rates, Scope
from frond.contracts.errors import JobRejected, ModelRejected, RasterRejected
from frond.contracts.jobs import ModelRef
from frond.contracts.reasons import Reason
from frond.inference import metrics
from frond.inference.decoding import Decoded, Image
from frond.inference.models import ModelCache
from frond.inference.pipeline import Runner
from frond.inference.predict import Prediction, predict
from frond.inference.problems import MEDIA_TYPE, add_problems
from frond.inference.settings import InferenceSettings
from frond.raster import Limits

_bearer = HTTPBearer(
    auto_error=False, description="an API key (frond_…), or a token of the configured issuer"
)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The image itself; its kind is told from its first bytes.",
        "content": dict.fromkeys(
            ("image/tiff", "image/png", "image/jpeg", "application/octet-stream"), _BINARY
        ),
    }
}
_IN_MEMORY = 1 << 20
_REF_S = 1.0
_REFS = 1000
_PROBLEM = {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}


class _Room:
    """For so many images in memory."""

    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.threads = ThreadPoolExecutor(places, thread_name_prefix="predict")


class Predictor:
    """Answers /predict with the process's models and its model threads.

    Args:
        decode: decodes an image, in another process.
    """

    def __init__(
        self,
        settings: InferenceSettings,
        models: ModelCache,
        runner: Runner,
        gate: Gate,
        decode: Callable[[Image], Decoded],
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._rates = Rates(settings.request_rate, settings.upload_rate)
        self._bodies = Bodies(settings.bodies_at_once, settings.body_silence_s)
        self._models = models
        self._runner = runner
        self._predict = partial(predict, decode=decode)
        self._limits = Limits(
            max_pixels=settings.predict_max_pixels,
            bomb_bytes=8 * settings.predict_max_pixels,
            max_windows=10_000,
            max_detections=settings.max_detections,
            # nothing is gained by reading it twice
            verify_pixels=0,
        )
        # images of models that servers run have a room of their own: a server that hangs fills only that
        self._rooms = {remote: _Room(settings.predict_at_once) for remote in (False, True)}
        self._refs: dict[str | None, tuple[float, ModelRef | None]] = {}

    def close(self) -> None:
        for room in self._rooms.values():
            room.threads.shutdown(wait=False, cancel_futures=True)

    async def admit(self, authorization: str | None) -> str:
        """Let a request in; the result is whose it is, for :meth:`body`.

        Raises:
            JobRejected: UNAUTHORIZED, FORBIDDEN without the scope ``submit``, RATE_LIMITED.
        """
        who = await self._gate.identify(authorization)
        who.require(Scope.SUBMIT)
        self._rates.admit(who.subject)
        self._rates.admit_body(who.subject)
        return who.subject

    async def body(self, request: Request, subject: str, most: int) -> IO[bytes]:
        """A request's body, at its sender's pace and at most as many bytes, in a file that stands at
        its end.

        Raises:
            RasterRejected: it has more bytes.
            JobRejected: it is a form; RATE_LIMITED: too many of the sender's come in; UNAVAILABLE:
                nothing more comes of it.
        """
        with self._bodies.of(subject, request.receive) as receive:
            coming = Request(request.scope, receive)
            return await _body(coming, most, lambda count: self._rates.pace(subject, count))

    async def answer(
        self,
        read_body: Callable[[int], Awaitable[IO[bytes]]],
        model: str | None,
        score: float | None,
        gsd_m: float | None = None,
    ) -> Prediction:
        """The detections of one image.

        Args:
            read_body: reads the request's body, at most as many bytes as given, to a file that
                stands at its end.
        """
        ref = await self._meant(model)
        manifest = await self._models.registry.manifest(ref)
        if manifest.task == "segmentation":
            raise ModelRejected(
                Reason.BAD_MODEL,
                f"{ref.name} is a model for {manifest.task}, and this door answers with "
                "boxes. Upload the image as a job.",
            )
        # before there is room: a sender may be slow, and must not keep others waiting, nor a model
        # in memory that others have taken the place of
        with await read_body(self._settings.predict_max_bytes) as body:
            # a model that has to be loaded takes no place meanwhile; nor is it held for want of one
            await self._models.get(ref)
            room = self._rooms[manifest.server is not None]
            async with room.places:
                session = await self._models.get(ref)
                body.seek(0)
                data = body.read()
                loop = asyncio.get_running_loop()
                try:
                    return await loop.run_in_executor(
                        room.threads, self._predict, data, ref, session, self._runner, self._limits,
                        score, gsd_m,
                    )  # fmt: skip
                except ModelRejected as e:
                    raise ModelRejected(Reason.INFERENCE_FAILED, e.detail) from e

    async def _meant(self, model: str | None) -> ModelRef:
        """The version that a request means, as of a second ago."""
        now = time.monotonic()
        asked, ref = self._refs.get(model, (-_REF_S, None))
        if ref is not None and now - asked < _REF_S:
            return ref
        if ref is not None:
            # the others go on with it while this one asks
            self._refs[model] = (now, ref)
        try:
            ref = await self._models.registry.resolve(model)
        except BaseException:
            self._refs.pop(model, None)
            raise
        while len(self._refs) >= _REFS:
            self._refs.pop(next(iter(self._refs)))
        self._refs[model] = (now, ref)
        return ref


async def _body(request: Request, most: int, pace: Callable[[int], Awaitable[None]]) -> IO[bytes]:
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise JobRejected(
            Reason.BAD_REQUEST,
            "Send the image itself as the request's body (curl --data-binary @image.tif), "
            "not as a form.",
        )
    too_large = RasterRejected(
        Reason.TOO_LARGE,
        f"At most {most} bytes are taken here. Upload larger images as a job.",
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise too_large
    got = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 # the caller closes it
    try:
        async for piece in request.stream():
            await pace(len(piece))
            got.write(piece)
            if got.tell() > most:
                raise too_large
    except BaseException:
        got.close()
        raise
    return got


def make_app(find: Callable[[], Predictor], lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The service's API.

    Args:
        find: the predictor; asked for at each request.
        lifespan: entered before the first request, left after the last one.
    """
    app = FastAPI(
        title="Frond inference",
        description="Runs models over chunks of windows, and over single images by HTTP.",
        lifespan=lifespan,
    )
    add_problems(app)

    @app.post(
        "/predict",
        response_model=Prediction,
        response_model_exclude_none=False,
        openapi_extra=_BODY,
        summary="Detections in one image",
        responses={
            400: _PROBLEM, 401: _PROBLEM, 403: _PROBLEM, 404: _PROBLEM, 413: _PROBLEM,
            422: _PROBLEM, 429: _PROBLEM, 503: _PROBLEM,
        },
        tags=["predict"],
    )  # fmt: skip
    async def predict_one(
        request: Request,
        model: Annotated[
            str | None, Query(description="name, name@alias or name@digest", max_length=200)
        ] = None,
        score: Annotated[
            float | None, Query(ge=0, le=1, description="overrides the model's threshold")
        ] = None,
        gsd_m: Annotated[
            float | None,
            Query(
                gt=0,
                allow_inf_nan=False,
                description="ground metres a pixel, in place of what the image says: it is resampled to "
                "the model's. Where neither says, its pixels are taken as they are",
            ),
        ] = None,
        _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None,
    ) -> Response:
        """The image (GeoTIFF, PNG, JPEG or npy) is the request's body. Any size up to the limits:
        it is seen in windows, as in a job, and merged. Nothing is stored."""
        predictor = find()
        whose = await predictor.admit(request.headers.get("authorization"))
        found = await predictor.answer(
            lambda most: predictor.body(request, whose, most), model, score, gsd_m
        )
        metrics.PREDICTIONS.labels("200").inc()
        return Response(found.model_dump_json(by_alias=True), media_type="application/json")

    return app
