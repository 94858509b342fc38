"""The page in a notebook: what it asks goes over the widget's own messages, and no port is opened."""

import asyncio
import importlib.util
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vaes.errors import UserError
from vaes.explore import assets
from vaes.explore.source import Source, sentence
from vaes.run import Run

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["answer", "widget"]

# The page fills a document of its own, so that it and the notebook cannot change each other's looks. It asks through
# the function that its frame carries; answers come back by the number of the question.
MODULE = """
function render({ model, el }) {
  const frame = document.createElement("iframe");
  const asked = new Map();
  let last = 0;
  const hear = (message, buffers) => {
    const answer = asked.get(message.id);
    asked.delete(message.id);
    if (answer) answer({ ...message, body: buffers[0] });
  };
  frame.vaesAsk = async (path, method, body) => {
    const content = body === undefined ? undefined : await new Response(body).arrayBuffer();
    // Widgets of one notebook that show the same model hear each other's answers.
    const id = `${Math.random()} ${last++}`;
    return new Promise((done) => {
      asked.set(id, done);
      model.send({ id, path, method }, undefined, content ? [content] : []);
    });
  };
  model.on("msg:custom", hear);
  frame.title = "vaes explore";
  frame.style.cssText = `width: 100%; height: ${model.get("height")}px; border: 0`;
  frame.srcdoc = model.get("_page");
  el.append(frame);
  return () => model.off("msg:custom", hear);
}
export default { render };
"""


def widget(run: Run | Path | str, *, height: int = 760) -> Any:
    """The explorer of a run as a notebook's widget, decoding in this process.

    Args:
        run: a run, or a path as :func:`vaes.load` takes it.
        height: in pixels.

    Raises:
        UserError: the widget's packages are missing, or no run can be loaded.
    """
    missing = [name for name in ("anywidget", "starlette") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the widget needs {' and '.join(missing)}: pip install 'vaes[widget]'")
    import anywidget
    import traitlets

    if isinstance(run, Run):
        in_run = run.weights.parent.parent.name == "ckpt"
        source = Source(run.folder, checkpoint=run.asked) if in_run else Source(run.weights)
    else:
        source = Source(Path(run))
    if source.run is None:
        raise UserError(source.error or f"{source.path}: no run")
    source.begin()
    from vaes.explore.server import application

    app, token = application([source], token="widget")

    class Explorer(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        _esm = MODULE
        _page = traitlets.Unicode(_document()).tag(sync=True)
        height = traitlets.Int(0).tag(sync=True)

    def hear(shown: Any, message: Any, buffers: Any) -> None:
        """Answer from a thread: an event loop runs here already, and the kernel must hear what comes next."""

        def work() -> None:
            path, body = f"/{token}/api/{message['path']}", bytes(buffers[0]) if buffers else b""
            status, content = answer(app, path, message["method"], body)
            shown.send({"id": message["id"], "status": status}, buffers=[content])

        threading.Thread(target=work, daemon=True).start()

    shown = Explorer(height=height)
    shown.on_msg(hear)
    return shown


def answer(app: "ASGIApp", path: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
    """What the server's application says, without a socket: status and body."""
    parts, status = [], 500
    asked = urlsplit(path)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": asked.path,
        "raw_path": asked.path.encode(),
        "root_path": "",
        "query_string": asked.query.encode(),
        "headers": [(b"host", b"localhost")],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: Any) -> None:
        nonlocal status
        if event["type"] == "http.response.start":
            status = event["status"]
        else:
            parts.append(event.get("body", b""))

    try:
        asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    except Exception as error:  # what went wrong is told on the page, which waits for an answer
        return 500, json.dumps({"error": sentence(error)}).encode()
    return status, b"".join(parts)


def _document() -> str:
    files = assets.page()
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>vaes explore</title>'
        f'<style>{files["style.css"]}</style><script type="module">{assets.bundled()}</script></head>'
        "<body></body></html>"
    )
