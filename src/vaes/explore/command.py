"""What ``vaes explore`` and ``vaes report`` do."""

import importlib.util
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from vaes import config as configuration
from vaes.errors import UserError
from vaes.explore.source import Source
from vaes.terminal import escape, note, say
from vaes.weights import find_weights

__all__ = ["run_explore", "run_report"]


def run_explore(
    runs: Sequence[Path],
    host: str,
    port: int,
    browser: bool,
    checkpoint: str | None,
    device: str,
    imports: Sequence[Path],
    arguments: Sequence[str],
) -> None:
    """Serve the page until the command is stopped."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"vaes explore needs {' and '.join(missing)}: pip install 'vaes[explore]'")
    import uvicorn

    from vaes.explore.server import application, listen

    for path in imports:
        configuration.import_file(path)
    for path in runs:
        _refuse_nothing(path)
    sources = [Source(path, checkpoint=checkpoint, device=device, changes=tuple(arguments)) for path in runs]
    app, token = application(sources, host)
    with ExitStack() as stack:
        bound = stack.enter_context(listen(host, port))
        for source in sources:
            if source.error:
                note(f"note: {source.error}")
            stack.callback(source.close)
            source.begin()
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{bound.getsockname()[1]}/{token}/"
        say(address)
        if browser:
            webbrowser.open(address)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
        server.run(sockets=[bound])


def _refuse_nothing(path: Path) -> None:
    """Refuse a path where no run is, nor one that is being made; a damaged one is shown, with what is wrong."""
    if not path.exists() or not any((path / name).exists() for name in ("config.yaml", "ckpt", "metrics.jsonl")):
        find_weights(path)


def run_report(
    runs: Sequence[Path],
    output: Path | None,
    static: bool,
    checkpoint: str | None,
    device: str,
    imports: Sequence[Path],
    arguments: Sequence[str],
) -> None:
    """Write the report of a run, or of several in one file."""
    from vaes.explore.report import write_report

    if len(runs) > 1 and output is None:
        raise UserError("-o: missing; the report of several runs belongs to none of their folders, so name a file")
    for path in imports:
        configuration.import_file(path)
    sources = [Source(path, checkpoint=checkpoint, device=device, changes=tuple(arguments)) for path in runs]
    for source in sources:
        if source.run is None:
            raise UserError(source.error or f"{source.path}: no run")
    path = output or sources[0].folder / "report.html"
    for remark in write_report(sources, path, static=static):
        note(f"note: {remark}")
    which = "; ".join(
        f"{escape(source.name)}: {source.run.which}" if len(sources) > 1 else source.run.which
        for source in sources
        if source.run is not None
    )
    say(f"{escape(_from_here(path))} ({path.stat().st_size / 1e6:.1f} MB, {which})")


def _from_here(path: Path) -> Path:
    """Relative to the working directory where it lies below it."""
    whole, here = path.resolve(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else path
