"""The page as a notebook's widget: what it asks over messages is answered as the server would."""

import importlib.util
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explore.conftest import pixels

import vaes
from vaes.errors import UserError
from vaes.explore import widget

pytest.importorskip("anywidget", reason="vaes[widget] is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Kernel:
    """A widget whose answers are caught where a notebook's kernel would send them."""

    def __init__(self, shown: Any) -> None:
        self.shown, self._said, self._there = shown, {}, threading.Condition()
        shown.send = self._send

    def _send(self, message: Any, buffers: Any) -> None:
        with self._there:
            self._said[message["id"]] = message["status"], bytes(buffers[0])
            self._there.notify_all()

    def ask(self, path: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
        key = f"{path} {threading.get_ident()} {len(self._said)}"
        message = {"id": key, "path": path, "method": method}
        self.shown._handle_custom_msg(message, [memoryview(body)] if body else [])
        with self._there:
            assert self._there.wait_for(lambda: key in self._said, 60), path
            return self._said[key]


def test_a_message_is_answered_with_what_the_model_decodes(trained: Path) -> None:
    run = vaes.load(trained)
    kernel = Kernel(widget(run))
    code = [0.5, -1.25]
    status, body = kernel.ask("0/decode", "POST", np.array(code, "<f4").tobytes())
    assert status == 200
    np.testing.assert_array_equal(np.frombuffer(body, np.uint8).reshape(1, 16, 16), pixels(run, code))


def test_what_cannot_be_answered_is_told(trained: Path) -> None:
    kernel = Kernel(widget(trained))
    status, body = kernel.ask("0/decode", "POST", b"123")
    assert status == 422
    assert b"float32" in body
    assert kernel.ask("../../etc/passwd")[0] == 404


def test_without_its_package_it_is_a_sentence(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "anywidget" else find(name))
    with pytest.raises(UserError, match=r"anywidget: pip install 'vaes\[widget\]'"):
        widget(trained)


HOST = """async ([esm, state]) => {
  const heard = [];
  const model = {
    get: (key) => state[key],
    on: (_, run) => heard.push(run),
    off: (_, run) => heard.splice(heard.indexOf(run), 1),
    send: async (message, _, buffers) => {
      const given = buffers.length ? [...new Uint8Array(buffers[0])] : [];
      const [status, body] = await window.kernel(message.path, message.method, given);
      const answered = new DataView(Uint8Array.from(body).buffer);
      for (const run of [...heard]) run({ id: message.id, status }, [answered]);
    },
  };
  const { default: made } = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
  made.render({ model, el: document.body });
}"""
"""A page that is to the widget what a notebook is."""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to show the widget in")
def test_the_map_follows_the_pointer_in_a_notebook(trained: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    run = vaes.load(trained)
    kernel = Kernel(widget(run))
    state = {"_page": kernel.shown._page, "height": kernel.shown.height}

    def asked(path: str, method: str, body: list[int]) -> list[Any]:
        status, content = kernel.ask(path, method, bytes(body))
        return [status, list(content)]

    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        faults: list[str] = []
        page.on("console", lambda m: m.type in ("error", "warning") and faults.append(m.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.expose_function("kernel", asked)
        page.evaluate(HOST, [str(kernel.shown._esm), state])
        frame = page.frame_locator("iframe")
        shown = frame.locator("[data-testid=decoded][data-code]")
        shown.wait_for(timeout=60_000)
        before = shown.get_attribute("data-code")
        frame.locator("[data-testid=map]").hover(position={"x": 300, "y": 200})
        page.wait_for_function(
            """before => document.querySelector("iframe").contentDocument
            .querySelector("[data-testid=decoded]").dataset.code !== before""",
            arg=before,
        )
        code, grey = shown.evaluate(
            """canvas => [JSON.parse(canvas.dataset.code), [...canvas.getContext("2d")
            .getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 === 0)]"""
        )
        page.wait_for_timeout(400)  # the address, which this page has none of, is written a moment later
        browser.close()
    assert not faults
    assert np.abs(pixels(run, code).reshape(-1).astype(int) - np.array(grey)).max() <= 1
