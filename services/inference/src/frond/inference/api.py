"""The HTTP side: ``POST /predict``."""

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import IO, Annotated, Any, TypeVar
from weakref import WeakValueDictionary

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect
from starlette.types import Lifespan

from frond.auth import Bodies, Gate, Principal, Rates, Scope
from frond.contracts.errors import JobRejected, ModelRejected, RasterRejected
from frond.contracts.jobs import ModelRef
from frond.contracts.reasons import Reason
from frond.inference import metrics
from frond.inference.decoding import Decoded, Image
from frond.inference.models import ModelCache
from frond.inference.pipeline import Runner
from frond.inference.predict import Prediction, most_windows, predict
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
T = TypeVar("T")


class _Room:
    """For so many images in memory; half of them, and one at least, may be one tenant's."""

    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.threads = ThreadPoolExecutor(places, thread_name_prefix="predict")
        self._half = max(1, places // 2)
        # a share that nobody holds or waits for is forgotten
        self._shares = WeakValueDictionary[str, asyncio.Semaphore]()

    @asynccontextmanager
    async def place(self, tenant: str | None) -> AsyncIterator[None]:
        """A place for an image. ``tenant``: None, whose share is all: the installation's own keys."""
        share = None
        if tenant is not None:
            share = self._shares.setdefault(tenant, asyncio.Semaphore(self._half))
        async with share or nullcontext(), self.places:
            yield


async def _never() -> None:
    await asyncio.Event().wait()


async def _unless(gone: Coroutine[Any, Any, object], work: Coroutine[Any, Any, T]) -> T:
    """What comes of the work, unless ``gone`` ends first: ClientDisconnect then, once it has stopped."""
    doing, leaving = asyncio.create_task(work), asyncio.create_task(gone)
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientDisconnect
        return doing.result()
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.wait((doing, leaving))


class Predictor:
    """Answers /predict with the process's models and its model threads.

    Args:
        decode: decodes an image, in another process.
        choose: the version that answers, of the one that did and the one that is meant now.
    """

    def __init__(
        self,
        settings: InferenceSettings,
        models: ModelCache,
        runner: Runner,
        gate: Gate,
        decode: Callable[[Image], Decoded],
        choose: Callable[[ModelRef, ModelRef], ModelRef],
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._rates = Rates(settings.request_rate, settings.upload_rate)
        self._bodies = Bodies(settings.bodies_at_once, settings.body_silence_s)
        self._models = models
        self._choose = choose
        self._runner = runner
        self._predict = partial(predict, decode=decode, most=settings.predict_max_detections)
        self._limits = Limits(
            max_pixels=settings.predict_max_pixels,
            bomb_bytes=8 * settings.predict_max_pixels,
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

    async def admit(self, headers: Mapping[str, str]) -> Principal:
        """Let a request in: who sends it.

        Raises:
            JobRejected: UNAUTHORIZED, FORBIDDEN without the scope ``submit``, RATE_LIMITED.
        """
        self._gate.require_own_page(headers)
        who = await self._gate.identify(headers.get("authorization"))
        who.require(Scope.SUBMIT)
        self._rates.admit(who.subject)
        self._rates.admit_body(who.subject)
        return who

    async def body(self, request: Request, subject: str, most: int) -> IO[bytes]:
        """A request's body, at its sender's pace and at most as many bytes, in a file that stands at
        its end.

        Raises:
            RasterRejected: it has more bytes.
            JobRejected: it is a form; RATE_LIMITED: too many of the sender's come in; UNAVAILABLE:
                nothing more comes of it.
        """
        with self._bodies.of(subject, request.headers, request.receive) as receive:
            coming = Request(request.scope, receive)
            return await _body(coming, most, lambda count: self._rates.pace(subject, count))

    async def answer(
        self,
        read_body: Callable[[int], Awaitable[IO[bytes]]],
        model: str | None,
        score: float | None,
        gsd_m: float | None = None,
        *,
        tenant: str | None = None,
        gone: Callable[[], Coroutine[Any, Any, object]] = _never,
    ) -> Prediction:
        """The detections of one image.

        Args:
            read_body: reads the request's body, at most as many bytes as given, to a file that
                stands at its end.
            tenant: for whom; None: for nobody in particular.
            gone: ends when, after its body, whoever sent the request has left.

        Raises:
            ClientDisconnect: they have.
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
            try:
                return await _unless(gone(), self._run(room, tenant, body, ref, score, gsd_m))
            except ModelRejected as e:
                raise ModelRejected(Reason.INFERENCE_FAILED, e.detail) from e

    async def _run(
        self,
        room: _Room,
        tenant: str | None,
        body: IO[bytes],
        ref: ModelRef,
        score: float | None,
        gsd_m: float | None,
    ) -> Prediction:
        async with room.place(tenant):
            session = await self._models.get(ref)
            body.seek(0)
            windows = most_windows(session.manifest, self._limits.max_pixels)
            stop = threading.Event()
            running = asyncio.get_running_loop().run_in_executor(
                room.threads,
                partial(
                    self._predict, body.read(), ref, session, self._runner,
                    replace(self._limits, max_windows=windows), score, gsd_m, stop=stop,
                ),
            )  # fmt: skip
            try:
                await asyncio.wait((running,))
            finally:
                stop.set()
                # its place is free when its thread is
                await asyncio.gather(running, return_exceptions=True)
            return running.result()

    async def _meant(self, model: str | None) -> ModelRef:
        """The version that a request means, as of a second ago; the one before, until that is loaded."""
        now = time.monotonic()
        asked, held = self._refs.get(model, (-_REF_S, None))
        if held is not None and now - asked < _REF_S:
            return held
        if held is not None:
            # the others go on with it while this one asks
            self._refs[model] = (now, held)
        try:
            ref = await self._models.registry.resolve(model)
        except BaseException:
            self._refs.pop(model, None)
            raise
        if held is not None:
            ref = self._choose(held, ref)
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


async def _gone(request: Request) -> None:
    """Ends when whoever sent this request, whose body was read, has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


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
        # FastAPI's own pages load scripts from a CDN
        docs_url=None,
        redoc_url=None,
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
        who = await predictor.admit(request.headers)
        found = await predictor.answer(
            lambda most: predictor.body(request, who.subject, most), model, score, gsd_m,
            tenant=who.tenant, gone=lambda: _gone(request),
        )  # fmt: skip
        metrics.PREDICTIONS.labels("200").inc()
        return Response(found.model_dump_json(by_alias=True), media_type="application/json")

    return app
