"""A small server for one user's browser: pages and numbers out, codes and pictures in.

Everything lies under a token that no other page can know; Host and Origin are checked, so that no other site can reach
it through the browser; nothing that comes in is ever a path.
"""

import ipaddress
import re
import secrets
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vaes import __version__, files
from vaes.errors import UserError
from vaes.explore import assets, numbers
from vaes.explore.pack import pack
from vaes.explore.source import MOST_BYTES, MOST_CODES, Source, sentence

__all__ = ["application", "listen"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
OCTETS = "application/octet-stream"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        UserError: the port is taken or not allowed, or the host none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"--host {host}: {error.strerror or error}; give an address of this machine") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen()  # from now on a browser waits, and is not refused
    except OSError as error:
        bound.close()
        raise UserError(f"--port {port}: {error.strerror}; give another, or none for one that is free") from None
    return bound


def application(sources: Sequence[Source], host: str = "127.0.0.1", token: str | None = None) -> tuple[ASGIApp, str]:
    """The server's application, and the token that its addresses begin with."""
    token = token or secrets.token_urlsafe(16)
    api = _Api(sources)
    routes = [
        Route("/", api.index),
        Route("/page/{name}", api.file),
        Route("/api/runs", api.runs),
        Route("/api/{run:int}/info", api.info),
        Route("/api/{run:int}/progress", api.progress),
        Route("/api/{run:int}/columns", api.columns),
        Route("/api/{run:int}/images", api.images),
        Route("/api/{run:int}/umap", api.umap),
        Route("/api/{run:int}/frame/{step:int}", api.frame),
        Route("/api/{run:int}/plane/{step:int}", api.plane),
        Route("/api/{run:int}/decode", api.decode, methods=["POST"]),
        Route("/api/{run:int}/encode", api.encode, methods=["POST"]),
        Route("/api/{run:int}/neighbours", api.neighbours, methods=["POST"]),
        Route("/api/{run:int}/reload", api.reload, methods=["POST"]),
    ]
    errors: dict[Any, Any] = {UserError: _said, OSError: _said, _TooLarge: _too_large}
    app = Starlette(routes=[Mount(f"/{token}", routes=routes)], exception_handlers=errors)
    return _Guard(app, host), token


class _TooLarge(Exception):  # noqa: N818 - an answer
    """More came in than is taken."""


async def _said(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": sentence(error)}, 422)


async def _too_large(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"more than {error.args[0]:,} bytes were sent; less is taken"}, 413)


class _Guard:
    """Refuses foreign names for this machine (DNS rebinding) and requests of other sites, and adds the headers."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"127.0.0.1", "localhost", "::1", host.lower()}
        self._open = host in ("0.0.0.0", "::")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if why := self._fault(headers):
            await Response(f"{why}\n", 403, HEADERS, media_type="text/plain")(scope, receive, send)
            return

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
            await send(message)

        await self._app(scope, receive, sent)

    def _fault(self, headers: dict[str, str]) -> str | None:
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if name not in self._names and not (self._open and _is_address(name)):
            return "this page is not served under that name"
        if "origin" in headers and headers["origin"] != f"http://{host}":
            return "another site's page may not ask this one"
        return None


def _is_address(name: str) -> bool:
    """An address in numbers, which no foreign name server can turn into this machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _Api:
    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    async def index(self, request: Request) -> Response:
        return Response(assets.page()["index.html"], media_type="text/html")

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in assets.page():
            return JSONResponse({"error": "there is no such file"}, 404)
        # All modules as one: a browser would ask for the others only once it has read those that need them.
        content = assets.bundled() if name == "main.js" else assets.page()[name]
        return Response(content, media_type=assets.TYPES[name.rpartition(".")[2]])

    async def runs(self, request: Request) -> Response:
        runs = [{"name": source.name, "error": source.error} for source in self._sources]
        return _json({"version": __version__, "runs": runs, "live": True})

    async def info(self, request: Request) -> Response:
        return _json(await run_in_threadpool((await self._source(request)).info))

    async def progress(self, request: Request) -> Response:
        source = await self._source(request)

        def look() -> dict[str, Any]:
            run = source.run
            steps = source.steps()
            return {
                **source.progress,
                "sha256": None if run is None else run.sha256,
                "newest": max(steps, default=None),
                "lines": _length(source),
                "data_error": source.data_error,
            }

        return _json(await run_in_threadpool(look))

    async def columns(self, request: Request) -> Response:
        return Response(pack(await run_in_threadpool((await self._source(request)).columns)), media_type=OCTETS)

    async def umap(self, request: Request) -> Response:
        arrays, said = await run_in_threadpool((await self._source(request)).umap)
        return Response(pack(arrays, **said), media_type=OCTETS)

    async def images(self, request: Request) -> Response:
        text = request.query_params.get("at", "")
        try:
            at = [int(word) for word in text.split(",", MOST_CODES) if word]
        except ValueError:
            raise UserError("images are asked for by their numbers: at=0,1,2") from None
        pixels = await run_in_threadpool((await self._source(request)).originals, at)
        return Response(pixels.tobytes(), media_type=OCTETS)

    async def frame(self, request: Request) -> Response:
        source = await self._source(request)
        content = await run_in_threadpool(numbers.frame, source.folder, request.path_params["step"])
        return Response(content, media_type="image/png")

    async def plane(self, request: Request) -> Response:
        source = await self._source(request)
        arrays, said = await run_in_threadpool(numbers.plane, source.folder, request.path_params["step"])
        return Response(pack(arrays, **said), media_type=OCTETS)

    async def decode(self, request: Request) -> Response:
        source = await self._source(request)
        size = 4 * (1 if source.run is None else source.run.model.z_dim)
        body = await _body(request, MOST_CODES * size)
        if len(body) % size:
            raise UserError("codes are float32, little-endian, one after another")
        z = np.frombuffer(body, "<f4").reshape(-1, size // 4)
        return Response((await run_in_threadpool(source.decode, z)).tobytes(), media_type=OCTETS)

    async def encode(self, request: Request) -> Response:
        source = await self._source(request)
        arrays, said = await run_in_threadpool(source.encode, await _body(request, MOST_BYTES))
        return Response(pack(arrays, **said), media_type=OCTETS)

    async def neighbours(self, request: Request) -> Response:
        source = await self._source(request)
        shape = (1, 1, 1) if source.run is None else source.run.image_shape
        size = int(np.prod(shape))
        body = await _body(request, size)
        if len(body) != size:
            raise UserError(f"a picture of {size:,} bytes is looked for")
        pixels, said = await run_in_threadpool(source.neighbours, np.frombuffer(body, np.uint8).reshape(shape))
        return Response(pack({"pixels": pixels}, **said), media_type=OCTETS)

    async def reload(self, request: Request) -> Response:
        source = await self._source(request)

        def again() -> dict[str, Any]:
            before = source.run
            source.reload()
            if source.run is not before:
                source.begin()
            return {"error": source.error}

        return _json(await run_in_threadpool(again))

    async def _source(self, request: Request) -> Source:
        """The run that is asked for, at the checkpoint that is (?checkpoint=STEP), else at its own."""
        number, step = request.path_params["run"], request.query_params.get("checkpoint", "")
        if number >= len(self._sources):
            raise UserError("there is no such run")
        if not step:
            return self._sources[number]
        if not re.fullmatch("[0-9]{1,18}", step):
            raise UserError("a checkpoint is asked for by its step: checkpoint=1000")
        return await run_in_threadpool(self._sources[number].at, int(step))


def _json(document: Any) -> JSONResponse:
    return JSONResponse(files.finite(document))


def _length(source: Source) -> int:
    """Of the log, which grows while the run is training."""
    try:
        return (source.folder / "metrics.jsonl").stat().st_size
    except OSError:
        return 0


async def _body(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _TooLarge(most)
        parts.append(part)
    return b"".join(parts)
