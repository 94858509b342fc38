"""The page in a real browser, over both back ends."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explore.conftest import HOSTILE, Served, pixels, serving
from PIL import Image

import vaes
from vaes.data import arrays
from vaes.explore import assets, write_report
from vaes.explore.source import Source

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to show the page in")
NEEDS_RUNTIME = pytest.mark.skipif(assets.runtime() is None, reason="make page has not fetched ONNX Runtime Web")

VIEWS = ["map", "traverse", "interpolate", "reconstruct", "training", "numbers"]
SHOWN = "[data-testid=decoded]"
READ = """canvas => {
  const { width, height } = canvas;
  const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  return { width, height, grey: [...data].filter((_, i) => i % 4 === 0), code: JSON.parse(canvas.dataset.code) };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that must say nothing on its console, and never be renamed by a class."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    found = context.new_page()
    faults: list[str] = []
    # The server's refusals, which tests ask for, are told by the browser itself.
    found.on(
        "console", lambda m: m.type in ("error", "warning") and "status of 4" not in m.text and faults.append(m.text)
    )
    found.on("pageerror", lambda error: faults.append(str(error)))
    yield found
    assert not faults
    assert found.title() != "owned"
    context.close()


@pytest.fixture(scope="module")
def report(trained: Path, home: Path) -> Path:
    write_report(Source(trained), home / "report.html")
    return home / "report.html"


@pytest.fixture(params=["server", pytest.param("report", marks=NEEDS_RUNTIME)])
def address(request: pytest.FixtureRequest, page: Any) -> str:
    """Of the page, by its server, or of a report on the disk without a network."""
    if request.param == "server":
        return str(request.getfixturevalue("served").address)
    path = request.getfixturevalue("report")
    page.context.set_offline(True)
    return f"file://{path}"


def shown(page: Any, wanted: Any = None) -> tuple[np.ndarray, list[float]]:
    """The picture and its code, once it is that of the code wanted, or of the sliders."""
    page.wait_for_function(
        """wanted => {
          const canvas = document.querySelector("[data-testid=decoded]");
          if (!canvas?.dataset.code) return false;
          const code = JSON.parse(canvas.dataset.code);
          const now = wanted || code.map((_, d) => Number(document.querySelector(`[data-testid=slider-${d}]`).value));
          return code.every((v, d) => Math.abs(v - now[d]) < 1e-5);
        }""",
        arg=wanted,
    )
    found = page.locator(SHOWN).evaluate(READ)
    return np.array(found["grey"]).reshape(found["height"], found["width"]), found["code"]


def changed(page: Any, before: list[float]) -> None:
    """Wait until another code's picture is shown."""
    other = "last => document.querySelector('[data-testid=decoded]').dataset.code !== JSON.stringify(last)"
    page.wait_for_function(other, arg=before)


def same(picture: np.ndarray, wanted: np.ndarray) -> bool:
    return picture.shape == wanted.shape[1:] and bool((np.abs(picture - wanted[0].astype(int)) <= 1).all())


def test_the_picture_follows_the_pointer_over_the_map(address: str, page: Any, trained: Path) -> None:
    run = vaes.load(trained)
    page.goto(address)
    _, before = shown(page)
    box = page.locator("[data-testid=map]").bounding_box()
    seen = []
    for across, down in ((0.3, 0.4), (0.62, 0.55)):
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        changed(page, seen[-1] if seen else before)
        picture, code = shown(page)
        assert code not in (before, *seen)
        assert same(picture, pixels(run, code))
        seen.append(code)
    (x0, y0), (x1, y1) = seen
    assert x1 > x0  # to the right, and down
    assert y1 < y0
    scale = (x1 - x0) / (0.32 * box["width"])
    assert (y0 - y1) / (0.15 * box["height"]) == pytest.approx(scale, rel=0.02)


def test_sliders_and_addresses(address: str, page: Any, trained: Path) -> None:
    run = vaes.load(trained)
    page.goto(address)
    shown(page)
    page.locator("[data-testid=slider-1]").fill("1.25")
    page.locator("[data-testid=slider-0]").fill("-0.5")
    picture, code = shown(page, [-0.5, 1.25])
    assert same(picture, pixels(run, code))
    page.get_by_role("button", name="Reconstructions").click()
    page.wait_for_function("() => location.hash.includes('view=reconstruct') && location.hash.includes('z=-0.5,1.25')")
    again = page.context.new_page()
    again.goto(page.url)
    picture, code = shown(again, [-0.5, 1.25])
    assert same(picture, pixels(run, code))
    assert again.locator("nav [aria-current=page]").inner_text() == "Reconstructions"
    again.close()


def test_a_picture_of_ones_own_is_dropped_and_one_is_drawn(address: str, page: Any, trained: Path, home: Path) -> None:
    run, path = vaes.load(trained), home / "photos" / "plain" / "5.png"
    page.goto(address)
    _, before = shown(page)
    page.locator("[data-testid=drop]").set_input_files(path)
    page.wait_for_function("() => document.body.innerText.includes('your picture')")
    picture, code = shown(page)
    assert code == pytest.approx(run.encode([path]).mean[0].tolist(), abs=0.02)  # the report's encoder is in float16
    assert same(picture, pixels(run, code))
    page.get_by_role("button", name="Draw", exact=True).click()
    box = page.locator("[data-testid=board]").bounding_box()
    page.mouse.move(box["x"] + 140, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 140, box["y"] + 220, steps=4)
    page.mouse.up()
    changed(page, code)
    picture, drawn = shown(page)
    assert drawn not in (code, before)
    assert same(picture, pixels(run, drawn))


def test_every_view_shows_foreign_names_as_text_and_fits_its_window(address: str, page: Any, tmp_path: Path) -> None:
    page.goto(f"{address}#layers=tiles,dots,thumbs,rings,lines")
    shown(page)
    assert page.locator(".chip").all_inner_texts() == sorted(HOSTILE)
    for view in VIEWS:
        page.locator("nav button").nth(VIEWS.index(view)).click()
        page.wait_for_timeout(150)
        assert page.locator("main.fault, main .fault:visible").count() == 0
    assert page.locator("[data-testid=metrics]").inner_text().count("nats")
    page.locator("nav button").nth(VIEWS.index("training")).click()
    assert page.locator("[data-testid=curves] canvas").count() >= 3
    for width, scheme in ((1280, "dark"), (390, "light")):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        for view in VIEWS:
            page.locator("nav button").nth(VIEWS.index(view)).click()
            page.wait_for_timeout(100)
            over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert over <= 0, f"{view} is {over} pixels too wide at {width}"
            page.screenshot(path=tmp_path / f"{view}-{width}-{scheme}.png")


def test_the_keyboard_moves_over_the_map(address: str, page: Any, trained: Path) -> None:
    page.goto(address)
    _, before = shown(page)
    page.locator("[data-testid=map]").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    changed(page, before)
    picture, code = shown(page)
    assert code[0] > before[0]
    assert code[1] > before[1]
    assert same(picture, pixels(vaes.load(trained), code))


def test_a_report_without_a_decoder_shows_what_was_decoded(page: Any, trained: Path, tmp_path: Path) -> None:
    run, path = vaes.load(trained), tmp_path / "static.html"
    write_report(Source(trained), path, static=True)
    assert path.stat().st_size < 2_000_000
    page.context.set_offline(True)
    page.goto(f"file://{path}")
    page.wait_for_selector(f"{SHOWN}[data-code]")
    found = page.locator(SHOWN).evaluate(READ)  # it begins with a test image, whose picture is stored
    assert same(np.array(found["grey"]).reshape(16, 16), pixels(run, found["code"]))
    for view in VIEWS:
        page.locator("nav button").nth(VIEWS.index(view)).click()
        page.wait_for_timeout(100)
    page.locator("nav button").nth(1).click()
    page.wait_for_selector(".walks canvas")
    assert page.locator(".walks canvas").count() == 22


def test_a_checkpoint_is_chosen_and_the_address_keeps_it(served: Served, page: Any, trained: Path) -> None:
    page.goto(f"{served.address}#z=0.5,-1")
    shown(page, [0.5, -1])
    offered = page.locator("[data-testid=checkpoint] option").evaluate_all("all => all.map(one => one.value)")
    assert offered == ["", *map(str, served.sources[0].steps())]
    step = next(step for step in offered[1:] if int(step) != vaes.load(trained).step)
    page.get_by_test_id("checkpoint").select_option(step)
    page.wait_for_function("s => document.querySelector('.facts')?.textContent.includes(`step ${s}`)", arg=step)
    picture, code = shown(page, [0.5, -1])
    assert same(picture, pixels(vaes.load(trained, checkpoint=step), code))
    assert not same(picture, pixels(vaes.load(trained), code))
    page.wait_for_function("s => location.hash.includes(`checkpoint=${s}`)", arg=step)
    again = page.context.new_page()
    again.goto(page.url)
    assert np.array_equal(shown(again, [0.5, -1])[0], picture)
    again.close()
    page.goto(f"{served.address}#z=0.5,-1&checkpoint=7")  # is not there: said, and the run's own shown
    page.reload()
    page.wait_for_selector("text=there is no checkpoint of step 7")
    assert same(shown(page, [0.5, -1])[0], pixels(vaes.load(trained), code))


def panel(page: Any, at: int) -> np.ndarray:
    """A panel of the plane that forms, as the page shows it."""
    drawn = "at => document.querySelectorAll('[data-testid=forming] canvas')[at].toDataURL()"
    content = base64.b64decode(page.evaluate(drawn, at).partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(int)


def test_the_latent_plane_forms_step_by_step_and_the_address_keeps_the_step(
    address: str, page: Any, trained: Path
) -> None:
    from vaes.view import planes, read_plane

    steps = planes(trained)
    page.goto(f"{address}#view=training&formed={steps[3]}")
    at = page.get_by_test_id("forming-step")
    at.filter(has_text=f"step {steps[3]}").wait_for()
    # The mean of the tiles' panel is that of the tiles kept.
    assert panel(page, 1).mean() == pytest.approx(read_plane(trained, steps[3]).tiles.float().mean().item(), abs=3)
    before = panel(page, 0)
    page.get_by_label("step of the latent plane").fill(str(len(steps) - 1))
    at.filter(has_text=f"step {steps[-1]}").wait_for()
    assert not np.array_equal(panel(page, 0), before)
    page.wait_for_function("() => !location.hash.includes('formed')")
    page.get_by_label("step of the latent plane").fill("1")
    page.wait_for_function("s => location.hash.includes(`formed=${s}`)", arg=steps[1])
    page.get_by_label("Play or pause the latent plane").click()
    page.wait_for_function("s => Number(document.querySelector('[data-testid=forming-step]').dataset.step) > s", arg=1)
    with page.expect_download() as kept:
        page.locator("section").filter(has_text="The latent plane forming").get_by_role("button", name="PNG").click()
    assert kept.value.suggested_filename.startswith("latent-plane-")


def test_a_run_that_is_at_work_is_watched_until_its_folder_vanishes(page: Any, trained: Path, home: Path) -> None:
    run = home / "at-work"
    experiment = vaes.load(trained).experiment
    experiment.fit(run)
    drawn = """() => document.querySelector("[data-testid=curves] canvas")?.getAttribute("aria-label")"""
    with serving([Source(run)]) as served:
        page.goto(f"{served.address}#view=training")
        page.get_by_test_id("forming-step").filter(has_text="step 60").wait_for()
        first = page.evaluate(drawn)
        longer = vaes.Experiment.of({**experiment.to_dict(), "train": {**experiment.train, "n_steps": 90}})
        longer.fit(run, resume="latest")
        page.wait_for_function(f"before => ({drawn})() !== before", arg=first)
        page.get_by_test_id("forming-step").filter(has_text="step 90").wait_for()
        newest = "() => [...document.querySelectorAll('[data-testid=checkpoint] option')].some(o => o.value === '90')"
        page.wait_for_function(newest)
        shutil.rmtree(run)
        page.wait_for_function("() => document.querySelector('[data-testid=curves] .empty')")
        assert page.get_by_test_id("forming-step").inner_text() == "step 90"
        page.get_by_role("button", name="Map", exact=True).click()
        shown(page)
        assert page.locator(".banner.fault:visible").count() == 0


def test_a_damaged_run_is_said_and_the_rest_works(served: Served, page: Any) -> None:
    page.goto(f"{served.address}#run=1")
    page.wait_for_selector(".banner.fault:visible")
    assert "damaged" in page.locator(".banner.fault:visible").inner_text()
    assert page.locator("[data-testid=curves] canvas").count() >= 3
    page.get_by_label("run", exact=True).select_option("0")
    page.get_by_role("button", name="Map", exact=True).click()
    shown(page)
    page.locator("nav button").last.click()
    page.wait_for_selector(".compare .card .fault")
    assert page.locator(".compare .card").count() == 2


AXE = Path(__file__).resolve().parents[2] / "web" / "axe.min.js"


@pytest.mark.skipif(not AXE.is_file(), reason="make page has not fetched axe-core")
def test_axe_finds_no_serious_fault(served: Served, page: Any) -> None:
    page.goto(served.address)
    shown(page)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for view in VIEWS:
            page.locator("nav button").nth(VIEWS.index(view)).click()
            page.wait_for_timeout(200)
            found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
            serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
            assert not serious, [(view, scheme, v["id"], v["nodes"][0]["html"][:200]) for v in serious]


@NEEDS_RUNTIME
def test_a_report_of_a_run_whose_codes_are_grids_decodes(page: Any, tmp_path: Path) -> None:
    network = {"kind": "autoencoder_kl", "ch": 8, "ch_mult": [1, 2], "groups": 4}
    train = {"n_steps": 2, "batch_size": 8, "eval_freq": 2, "sample_freq": 2, "save_freq": 2}
    experiment = vaes.Experiment(model={"network": network, "z_channels": 2}, train=train)
    images = np.random.default_rng(0).integers(0, 256, (48, 1, 8, 8), dtype=np.uint8)
    run = experiment.fit(tmp_path / "run", data=arrays(images[:32], images[32:40]), device="cpu")
    assert len(run.model.z_shape) == 3
    write_report(Source(run.folder), tmp_path / "grid.html")
    page.context.set_offline(True)
    page.goto(f"file://{tmp_path / 'grid.html'}")
    picture, code = shown(page)
    assert same(picture, pixels(run, code))


@pytest.mark.parametrize("static", [pytest.param(False, marks=NEEDS_RUNTIME), True])
def test_one_report_holds_several_runs_each_with_its_own_decoder(
    page: Any, trained: Path, home: Path, static: bool
) -> None:
    path = home / f"two-{static}.html"
    steps = [str(step) for step in Source(trained).steps()[:2]]
    write_report([Source(trained, checkpoint=step) for step in steps], path, static=static)
    page.context.set_offline(True)
    pictures = []
    for number, step in enumerate(steps):
        page.goto(f"file://{path}#run={number}&z=0.5,-1")
        page.reload()
        page.wait_for_function(
            "() => document.querySelector('[data-testid=decoded]')?.dataset.code?.startsWith('[0.5,-1')"
        )
        found = page.locator(SHOWN).evaluate(READ)
        picture = np.array(found["grey"]).reshape(found["height"], found["width"])
        pictures.append(picture)
        if not static:
            assert same(picture, pixels(vaes.load(trained, checkpoint=step), found["code"]))
    assert not np.array_equal(*pictures)
    page.get_by_role("button", name="Compare").click()
    page.wait_for_function("() => document.querySelectorAll('.compare article canvas').length === 2 * 11")
    assert not page.locator(".compare .fault").count()
