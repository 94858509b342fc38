"""The page of runs: what it holds, and in a real browser, its axes."""

import shutil
from pathlib import Path

import pytest
from compare.made import make, metric

from vaes import compare
from vaes.compare import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def written(folder: Path) -> Path:
    """A page of four runs, one of which has a hostile name."""
    runs = [
        make(folder, name, [metric("elbo", -100.0 - 10 * i)], beta=beta, seed=i)
        for i, (name, beta) in enumerate([("a", 1.0), ("b", 4.0), ("c", 16.0), ("<img src=x>", 64.0)])
    ]
    write_page(compare.read_runs(runs), "<b>sweep</b>", folder / "page.html")
    return folder / "page.html"


def test_axes_are_what_differs_and_what_was_measured(tmp_path: Path) -> None:
    from vaes.compare.web import document_of

    written(tmp_path)
    runs = [path.parent for path in sorted(tmp_path.rglob("config.yaml"))]
    found = document_of(compare.read_runs(runs), "t")
    assert [axis["name"] for axis in found["axes"]] == ["objective.beta", "seed", "elbo"]
    assert found["axes"][0]["log"]
    assert found["axes"][2]["better"] == "↑"
    assert sorted(one["values"] for one in found["runs"]) == [
        [1.0, 0, -100.0], [4.0, 1, -110.0], [16.0, 2, -120.0], [64.0, 3, -130.0],
    ]  # fmt: skip


def test_nothing_from_a_run_ends_an_element(tmp_path: Path) -> None:
    text = written(tmp_path).read_text(encoding="utf-8")
    assert "<img" not in text
    assert "<b>" not in text
    assert text.count("</script>") == 2


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to show the page in")
def test_windows_on_the_axes_choose_runs_by_mouse_and_by_keyboard(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = written(tmp_path)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        faults: list[str] = []
        page.on("console", lambda m: faults.append(m.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.context.set_offline(True)
        page.goto(f"file://{path}")
        lines = page.locator("path.run")
        assert lines.count() == 4
        chosen = "() => document.querySelectorAll('path.run:not(.out)').length"
        assert page.evaluate(chosen) == 4
        assert "<img src=x>" in page.inner_text("body")
        upper = page.locator("[data-handle='0 1']")
        upper.focus()
        page.keyboard.press("PageDown")  # of six decades of 2, a fifth of the way down: 64 falls out
        assert page.evaluate(chosen) == 3
        page.keyboard.press("Escape")
        assert page.evaluate(chosen) == 4
        box = page.locator("[data-axis='0']").bounding_box()
        x = box["x"] + box["width"] / 2
        page.mouse.move(x, box["y"] + 0.5 * box["height"])
        page.mouse.down()
        page.mouse.move(x, box["y"] + box["height"] - 2, steps=4)
        page.mouse.up()
        assert page.evaluate(chosen) == 2  # 1 and 4
        browser.close()
    assert not faults
