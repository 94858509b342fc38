"""How fast the page answers: decodes by the server and in a report, the time until the map is usable, frames a second.

    python benchmarks/explorer.py RUN [--points 100000]

Medians, in milliseconds, in headless Chromium with software GL (which is far slower than a graphics card). RUN is any
run folder; frames a second are those of dragging over so many codes, drawn from the prior, to decode and to move the
map, beside the most that the machine shows just then, which is little where others use it.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from playwright.sync_api import sync_playwright

from vaes.explore import write_report
from vaes.explore.server import application, listen
from vaes.explore.source import Source

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
DECODE = """async () => {
  const box = document.querySelector("[data-testid=map]").getBoundingClientRect();
  const shown = document.querySelector("[data-testid=decoded]");
  const map = document.querySelector("[data-testid=map]");
  const times = [];
  for (let i = 0; i < 60; i++) {
    const before = shown.dataset.code;
    const at = { clientX: box.x + box.width * (0.2 + 0.01 * i), clientY: box.y + box.height / 2, pointerType: "mouse" };
    const begun = performance.now();
    map.dispatchEvent(new PointerEvent("pointermove", at));
    while (shown.dataset.code === before) await new Promise((done) => setTimeout(done, 0));
    times.push(performance.now() - begun);
    await new Promise((done) => setTimeout(done, 20));
  }
  return times;
}"""
FRAMES = """async (button) => {
  const map = document.querySelector("[data-testid=map]");
  const box = map.getBoundingClientRect();
  const send = (kind, x) => map.dispatchEvent(new PointerEvent(kind, {
    clientX: box.x + x, clientY: box.y + 200, pointerId: 1, button, pointerType: "mouse" }));
  map.setPointerCapture = () => {};
  const blank = document.createElement("div");
  blank.style.cssText = "position:absolute;inset:0;background:#888;will-change:transform";
  if (button >= 0) send("pointerdown", 300);
  else map.append(blank);
  const begun = performance.now();
  let frames = 0;
  while (performance.now() - begun < 3000) {
    if (button >= 0) send("pointermove", 300 + (frames % 200));
    else blank.style.transform = `translate(${frames % 200}px, 0)`;
    await new Promise(requestAnimationFrame);
    frames++;
  }
  if (button >= 0) send("pointerup", 300);
  blank.remove();
  return frames / ((performance.now() - begun) / 1000);
}"""
DRAGS = {"most": -1, "decoding": 0, "moving": 2}
"""Buttons of the mouse: none (a blank box moves: the most frames that the machine shows then), to decode, to move."""


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--points", type=int, default=100_000)
    given = parser.parse_args()
    source = Source(given.run)
    found: dict[str, Any] = {"run": source.name, "server_ms": _server(source)}
    source.begin().join()
    app, token = application([source])
    with listen("127.0.0.1", 0) as bound, sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        address = f"http://127.0.0.1:{bound.getsockname()[1]}/{token}/#layers=dots,rings"
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        begun = time.perf_counter()
        page.goto(address)
        page.wait_for_selector("[data-testid=decoded][data-code]")
        found["usable_ms"] = 1000 * (time.perf_counter() - begun)
        found["page_by_server_ms"] = statistics.median(page.evaluate(DECODE))
        report = Path(folder) / "report.html"
        write_report(source, report)
        found["report_mb"] = report.stat().st_size / 1e6
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        begun = time.perf_counter()
        page.goto(f"file://{report}#layers=dots,rings")
        page.wait_for_selector("[data-testid=decoded][data-code]")
        found["report_ready_ms"] = 1000 * (time.perf_counter() - begun)
        found["report_decode_ms"] = statistics.median(page.evaluate(DECODE))
        _enlarge(source, given.points)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(address)
        page.wait_for_selector("[data-testid=decoded][data-code]")
        page.wait_for_timeout(1000)
        found["points"] = given.points
        found |= {f"frames_per_second_{name}": page.evaluate(FRAMES, button) for name, button in DRAGS.items()}
        server.should_exit = True
    print(json.dumps({key: round(v, 2) if isinstance(v, float) else v for key, v in found.items()}))


def _server(source: Source) -> float:
    assert source.run is not None
    z, times = np.random.default_rng(0).standard_normal((50, 1, source.run.model.z_dim)).astype(np.float32), []
    for code in z:
        begun = time.perf_counter()
        source.decode(code)
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times)


def _enlarge(source: Source, points: int) -> None:
    """As many rows as wanted, by repeating what is known of the images with other codes."""
    table = source.table
    assert table is not None
    rows = np.arange(points) % len(table.at)
    codes = table.codes
    drawn = np.random.default_rng(0).standard_normal((points, codes.mean.shape[1])).astype(np.float32)
    columns = {name: column[rows] for name, column in codes._asdict().items() if column is not None and name != "mean"}
    source._table = table._replace(at=table.at[rows], codes=codes._replace(mean=drawn, **columns))


if __name__ == "__main__":
    main()
