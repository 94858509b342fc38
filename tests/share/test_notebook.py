"""How a notebook shows a run."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from trainings import splits

from vaes import Experiment, Run, load


@pytest.fixture
def run(tmp_path: Path) -> Run:
    raw = {"model": {"z_dim": 2, "network": {"kind": "mlp", "hidden": [16]}}, "train": {"n_steps": 4, "batch_size": 8}}
    return Experiment.of(raw).fit(tmp_path / "a<b>'run", data=splits(), device="cpu")


def shown(run: Run) -> tuple[str, list[str], list[str]]:
    """The text of the page, its tags, and its pictures' sources."""
    tags: list[str] = []
    texts: list[str] = []
    sources: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            sources.extend(str(value) for name, value in attributes if name == "src")

        def handle_data(self, data: str) -> None:
            texts.append(data)

    Reader().feed(run._repr_html_())
    return " | ".join(texts), tags, sources


def test_it_says_what_it_is_with_numbers_and_samples(run: Run) -> None:
    text, tags, sources = shown(run)
    assert "vae on arrays" in text
    assert str(run.folder) in text  # whatever its name
    test = json.loads((run.folder / "metrics.json").read_text())
    document = test if test["step"] == run.step else test["best"]
    elbo = document["test"]["elbo"]
    assert f"{elbo['value']:.5g} ± {1.96 * elbo['stderr']:.3g} | nats per image" in text
    assert set(tags) <= {"div", "b", "table", "tr", "td", "img"}
    (source,) = sources
    kind, data = source.split(",", 1)
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).width > 300


def test_what_comes_from_its_files_is_escaped(run: Run) -> None:
    path = run.folder / "metrics.json"
    evil = "<script>alert(1)</script>\x1b[31m"
    test = {evil: {"value": 1.0, "stderr": None, "unit": evil}}
    path.write_text(json.dumps({"step": run.step, "test": test, "best": None}))
    html = run._repr_html_()
    assert "<script" not in html
    assert "\x1b" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"step": 4, "best": 3}', '{"step": "x", "best": {"step": 4}}'])
def test_what_is_gone_or_damaged_is_left_out_without_a_traceback(run: Run, damage: str) -> None:
    (run.folder / "metrics.json").write_text(damage)
    for path in (run.folder / "metrics.jsonl", run.weights):
        path.unlink()
    text, _, sources = shown(run)
    assert (
        re.search("its numbers cannot be read: .*metrics.json: is not what a training writes", text)
        or damage[:1] == "{"
    )
    assert sources
    (run.folder / "metrics.json").unlink()
    assert "cannot be read" not in shown(run)[0]


def test_a_diverged_model_is_shown_without_samples(run: Run) -> None:
    with torch.no_grad():
        next(run.model.decoder.parameters()).fill_(torch.nan)
    text, _, sources = shown(run)
    assert "no samples" in text
    assert not sources


def test_a_weights_file_alone_is_shown(run: Run, tmp_path: Path) -> None:
    alone = tmp_path / "w.safetensors"
    alone.write_bytes(run.weights.read_bytes())
    assert "vae on arrays" in shown(load(alone))[0]
