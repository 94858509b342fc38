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
    where: Path,
    output: Path | None,
    static: bool,
    checkpoint: str | None,
    device: str,
    imports: Sequence[Path],
    arguments: Sequence[str],
) -> None:
    """Write the report of a run."""
    from vaes.explore.report import write_report

    for path in imports:
        configuration.import_file(path)
    source = Source(where, checkpoint=checkpoint, device=device, changes=tuple(arguments))
    if source.run is None:
        raise UserError(source.error or f"{where}: no run")
    path = output or source.folder / "report.html"
    remarks = write_report(source, path, static=static)
    for remark in remarks:
        note(f"note: {remark}")
    say(f"{escape(path)} ({path.stat().st_size / 1e6:.1f} MB, {source.run.which})")
