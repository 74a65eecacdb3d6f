"""models init, check, diff: what one does with a model folder before it is pushed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frond.client.cli import show

if TYPE_CHECKING:
    from frond.contracts.modelspec import ServerSpec
    from frond.contracts.plan import ImagePlan
    from frond.models.report import Report, Windows
    from frond.models.session import ModelSession

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

_MARKS = {
    "wrong": ("does not fit", typer.colors.RED), "odd": ("look at this", typer.colors.YELLOW),
    "fine": ("fits", typer.colors.GREEN),
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add these commands to ``frond models``."""
    app.command("init")(init)
    app.command("check")(check)
    app.command("diff")(diff)


def init(
    graph: Annotated[
        str,
        typer.Argument(
            help="A model in ONNX format, or one on a server of the Open Inference Protocol: "
            "http://host:8000/v2/models/NAME, with /versions/VERSION if you like."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The folder to make; by default here, by the graph's name.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a model folder of an ONNX graph, or of a server's model: what can be seen, and marked
    guesses. A server is sent drawn scenes."""
    from frond.models.guess import write_folder, write_served_folder

    if "://" in graph:
        server = server_of(graph)
        folder = out or Path(server.model)
        found = write_served_folder(server, folder)
    else:
        path = Path(graph)
        folder = out or (path.parent if path.name == "model.onnx" else Path(path.stem))
        found = write_folder(path, folder)
    manifest = found.manifest
    if json:
        told = manifest.model_dump(mode="json")
        show.as_json(
            {"folder": str(folder), "manifest": told, "why": found.why,
             "guessed": found.guessed, "fill_in": found.fill_in, "problem": found.problem}
        )  # fmt: skip
        return
    spec = manifest.input
    show.line(f"{folder / 'model.yaml'}: decoder {manifest.decoder.name}, {_classes(manifest.classes)}, "
              f"windows of {spec.size}×{spec.size} ({spec.layout}, {spec.dtype})")  # fmt: skip
    show.line(f"Recognised by: {found.why}.")
    if found.guessed:
        show.line(f"Guesses, marked in the file: {', '.join(found.guessed)}.")
    if found.fill_in:
        typer.secho("For you to fill in:", bold=True)
        for sentence in found.fill_in:
            show.line(f"  {sentence}")
    if found.problem:
        typer.secho("It does not run yet:", bold=True)
        show.line(f"  {found.problem}")
    show.line(f"Next: frond models check {folder}")


def server_of(address: str) -> ServerSpec:
    """A model's address on a server, taken apart.

    Raises:
        ModelRejected: it is none.
    """
    from pydantic import ValidationError

    from frond.contracts.errors import ModelRejected
    from frond.contracts.modelspec import ServerSpec
    from frond.contracts.reasons import Reason

    parts = re.fullmatch(r"(.+)/v2/models/([^/]+)(?:/versions/([^/]+))?/?", address)
    try:
        if parts is not None:
            return ServerSpec(url=parts[1], model=parts[2], version=parts[3])
    except ValidationError:
        pass
    raise ModelRejected(
        Reason.BAD_MODEL,
        f"{address!r} is no address of a model on a server. Write http://host:port/v2/models/NAME, "
        "with /versions/VERSION if you like.",
    )


def check(
    folder: Annotated[Path, typer.Argument(help="With model.yaml, and model.onnx or a server.")],
    image: Annotated[
        Path | None,
        typer.Option(help="A GeoTIFF, PNG or JPEG to look at; else scenes are drawn."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The picture; by default FOLDER-check.png, here. Never in FOLDER, but beside."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run a model folder on a sample: what does not fit, what looks odd, and a picture.

    Exit code 1 where something does not fit. Nothing is sent anywhere but to the server that
    model.yaml names, where it names one.
    """
    from frond.client.drawing import picture
    from frond.client.samples import raster_windows, scene_windows
    from frond.models.check import check as put_to_the_test

    if image is not None and not image.is_file():
        raise FileNotFoundError(2, "There is no such file", str(image))
    plans: list[ImagePlan] = []

    def sample(session: ModelSession) -> Windows:
        if image is None:
            return scene_windows(session.manifest)
        windows, plan = raster_windows(image, session.manifest, session)
        plans.append(plan)
        return windows

    report = put_to_the_test(folder, sample)
    if plans:
        _tell_scale(report, plans[0])
    drawn = None
    if report.results and report.manifest is not None:
        drawn = _outside(folder, out or Path(f"{folder.resolve().name}-check.png"))
        picture(report.windows, report.results, report.manifest).save(drawn, format="PNG")
    if json:
        show.as_json(
            {"fits": report.fits, "findings": [{"level": f.level, "text": f.text} for f in report.findings],
             "window_s": report.window_s, "picture": str(drawn) if drawn else None}
        )  # fmt: skip
    else:
        _tell(report, folder, drawn)
    if not report.fits:
        raise typer.Exit(1)


def _outside(folder: Path, target: Path) -> Path:
    """Where a file may be written: beside the folder, not into it, where it would become part of the
    version."""
    inside = target.resolve().is_relative_to(folder.resolve())
    return folder.resolve().parent / target.name if inside else target


def _tell_scale(report: Report, plan: ImagePlan) -> None:
    model = report.manifest
    if model is None or model.object_px is None:
        return
    if plan.gsd_source == "estimated":
        report.say(
            "fine",
            f"{plan.name} does not say its ground sampling distance: by what is found in it, a pixel is "
            f"{plan.gsd_m:.2g} m.",
        )
    elif plan.gsd_m is None:
        report.say(
            "odd",
            f"{plan.name} does not say its ground sampling distance, and too little is found in it to "
            "tell: windows are at its own resolution.",
        )


def _tell(report: Report, folder: Path, drawn: Path | None) -> None:
    for level, (words, tint) in _MARKS.items():
        for finding in report.findings:
            if finding.level == level:
                typer.secho(f"{words:>12}  ", fg=tint, nl=False)
                show.line(finding.text)
    if drawn is not None:
        show.line(f"{'drawn':>12}  {drawn}")
    if report.fits:
        show.line(f"{'next':>12}  frond models push {folder}")


def diff(
    a: Annotated[
        str, typer.Argument(help="name, name@alias, name@digest, or a folder as ./folder.")
    ],
    b: Annotated[str, typer.Argument(help="What to compare it with.")],
    json: Json = False,
) -> None:
    """What differs between two versions, or between one and a folder here."""
    import tempfile

    from frond.models.differences import differences

    with tempfile.TemporaryDirectory(prefix="frond-diff-") as cache:
        found = differences(folder_of(a, Path(cache)), folder_of(b, Path(cache)))
    if json:
        show.as_json([{"what": d.what, "a": d.a, "b": d.b} for d in found])
    elif found:
        show.table(["", a, b], [(d.what, _short(d.a), _short(d.b)) for d in found])
    else:
        show.line("They are the same.")


def folder_of(ref: str, cache: Path) -> Path:
    """A folder here, which is written as a path, or a version fetched from the registry."""
    from frond.client import Client
    from frond.client.errors import FrondClientError
    from frond.models import folder_digest

    if ref.startswith(".") or "/" in ref:
        return Path(ref)
    folder = cache / ref
    if folder.exists():
        return folder
    with Client() as client:
        found = client.registry.fetch(ref, folder)
    if folder_digest(folder) != found["digest"]:
        raise FrondClientError(f"{ref} arrived with other bytes than were pushed. Try again.")
    return folder


def _short(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _classes(names: tuple[str, ...]) -> str:
    return f"{len(names)} class{'' if len(names) == 1 else 'es'}"
