"""The pictures of the page in README.md: two views of a run, and a film of the pointer over its latent plane.

    vaes train -c vae-numerals -e RUN && python benchmarks/pictures.py RUN

Screenshots of ``vaes explore`` and of ``vaes report`` in headless Chromium, written to docs/images. Test images stand
in the order of seed 0, and places of the plane are said below; only at which moment of its film the second is taken is
left to chance. RUN has two latent dimensions, and no photos of people, whose pictures would go with every copy of this
repository.
"""

import argparse
import io
import math
import shutil
import tempfile
import threading
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from vaes.errors import UserError
from vaes.explore import write_report
from vaes.explore.server import application, listen
from vaes.explore.source import Source

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars"]
SCALE, FILM_SCALE = 118, 104
"""Pixels a unit of the plane, whose origin stands in the middle of the map."""
PLACE = (0.62, -0.47)
ENDS = ("-1.5,1", "0.9,-1.6")
FRAMES, FRAME_MS = 72, 90


def main() -> None:
    """Take the pictures, and print how large each has become."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--into", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    source = Source(given.run)
    if source.run is None or source.run.model.z_dim != 2:
        raise UserError(f"{given.run}: {source.error or 'these are pictures of a plane: give a run of z_dim 2'}")
    source.begin().join()
    app, token = application([source])
    with (
        listen("127.0.0.1", 0) as bound,
        sync_playwright() as playwright,
        tempfile.TemporaryDirectory() as folder,
    ):
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        address = f"http://127.0.0.1:{bound.getsockname()[1]}/{token}/"
        report = Path(folder) / "report.html"
        write_report(source, report)

        page = _open(browser, f"{address}#camera=0,0,{SCALE}", 1400, 900)
        _point(page, *PLACE, SCALE)
        page.wait_for_timeout(1500)
        _still(page, given.into / "explore-map.png")
        page = _open(browser, f"file://{report}#view=interpolate&a={ENDS[0]}&b={ENDS[1]}", 1400, 900, dark=True)
        _still(page, given.into / "report.png")
        page = _open(browser, f"{address}#layers=tiles,rings&camera=0,0,{FILM_SCALE}", 1060, 800)
        _film(page, given.into / "plane.webp")
        server.should_exit = True


def _open(browser: Browser, address: str, width: int, height: int, *, dark: bool = False) -> Page:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    page.goto(address)
    page.wait_for_selector("[data-testid=decoded][data-code]")
    page.wait_for_timeout(2500)  # what is drawn later: the plane beneath, neighbours
    return page


def _point(page: Page, x: float, y: float, scale: float) -> None:
    """Put the pointer on a place of the plane, and wait for the picture of it."""
    box = page.locator("[data-testid=map]").bounding_box()
    assert box is not None
    decoded = page.locator("[data-testid=decoded]")
    before = decoded.get_attribute("data-code")
    page.mouse.move(box["x"] + box["width"] / 2 + x * scale, box["y"] + box["height"] / 2 - y * scale)
    page.wait_for_function("code => document.querySelector('[data-testid=decoded]').dataset.code !== code", arg=before)


def _still(page: Page, path: Path) -> None:
    """A screenshot in 256 colours, which is a third of the bytes."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")


def _film(page: Page, path: Path) -> None:
    """The map and the picture beside it, while the pointer walks round the plane and comes back to where it began."""
    box = page.locator("[data-testid=map]").bounding_box()
    beside = page.locator("aside").bounding_box()
    assert box is not None
    assert beside is not None
    clip = {
        "x": box["x"] - 8,
        "y": beside["y"] - 8,
        "width": beside["x"] + beside["width"] - box["x"] + 16,
        "height": box["y"] + box["height"] - beside["y"] + 16,
    }
    frames = []
    for k in range(FRAMES):
        turn = 2 * math.pi * k / FRAMES
        _point(page, 1.9 * math.sin(turn + 0.4), 1.7 * math.sin(2 * turn), FILM_SCALE)
        page.wait_for_timeout(60)
        shot = Image.open(io.BytesIO(page.screenshot(clip=clip)))  # type: ignore[arg-type]
        frames.append(shot.convert("RGB"))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, quality=42, method=4)
    print(f"{path}  {path.stat().st_size / 1e6:.2f} MB, {frames[0].width} x {frames[0].height}, {FRAMES} frames")


if __name__ == "__main__":
    main()
