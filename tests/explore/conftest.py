"""A tiny run on pictures whose classes have hostile names, and a server that shows it."""

import http.client
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import vaes
from vaes.explore.source import Source

HOSTILE = ("<script>document.title='owned'<", "<img src=x onerror=document.title='owned'>", "plain")


class Served(NamedTuple):
    """An address, and how to ask it for more than a browser would."""

    port: int
    token: str
    sources: Sequence[Source]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.token}/"

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        given = {"Host": f"127.0.0.1:{self.port}"} | {key.replace("_", "-"): value for key, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET" if body is None else "POST", path, body, given)
        answer = connection.getresponse()
        return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}

    def api(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        return self.ask(f"/{self.token}/api/{path}", body, **headers)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder, with a cache of its own in it for as long as there are tests."""
    folder = tmp_path_factory.mktemp("explore")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAES_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def trained(home: Path) -> Path:
    """A run folder: 2 dimensions, 16x16 grey, 3 classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for k, name in enumerate(HOSTILE):
        (home / "photos" / name).mkdir(parents=True)
        for i, picture in enumerate(digits.images[digits.target == k][:60]):
            large = np.kron((picture * 15.9).astype(np.uint8), np.ones((2, 2), np.uint8))
            Image.fromarray(large).save(home / "photos" / name / f"{i}.png")
    experiment = vaes.Experiment(
        method="vae",
        data={"kind": "folder", "root": str(home / "photos"), "image_size": 16},
        model={"z_dim": 2, "network": {"kind": "mlp"}, "likelihood": {"kind": "bernoulli"}},
        train={"n_steps": 60, "batch_size": 32, "print_freq": 10, "eval_freq": 20, "sample_freq": 30, "save_freq": 30},
    )
    return experiment.fit(home / "run").folder


@pytest.fixture(scope="session")
def damaged(trained: Path, home: Path) -> Path:
    """A copy of the run, none of whose checkpoints is whole."""
    copy = home / "damaged"
    shutil.copytree(trained, copy)
    for path in copy.glob("ckpt/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:1000])
    return copy


@contextmanager
def serving(sources: Sequence[Source]) -> Iterator[Served]:
    """Runs served by a thread."""
    uvicorn = pytest.importorskip("uvicorn", reason="vaes[explore] is not installed")
    from vaes.explore.server import application, listen

    sources[0].begin().join()
    app, token = application(sources)
    with listen("127.0.0.1", 0) as bound:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Served(bound.getsockname()[1], token, sources)
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="session")
def served(trained: Path, damaged: Path) -> Iterator[Served]:
    """The run and its damaged copy."""
    with serving([Source(trained), Source(damaged)]) as found:
        yield found


def pixels(run: vaes.Run, code: Any) -> np.ndarray:
    """What the Python API decodes a code to, (C, H, W) as bytes."""
    import torch

    from vaes.data import to_uint8

    return to_uint8(run.decode(torch.tensor([code])), run.model.value_range)[0].numpy()
