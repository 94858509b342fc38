import functools
import gzip
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vaes.data import mnist
from vaes.data.mnist_files import FILES
from vaes.errors import UserError

from .test_idx import idx


def write(folder: Path, pack=gzip.compress, suffix: str = ".gz", n: int = 12) -> dict[str, bytes]:
    """The four files of a small set of its own."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    for name in FILES:
        shape = (n, 28, 28) if "images" in name else (n,)
        contents[name] = idx(rng.integers(0, 256 if "images" in name else 10, shape, dtype=np.uint8))
        (folder / f"{name}{suffix}").write_bytes(pack(contents[name]))
    return contents


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A mirror on loopback that serves tmp_path/mirror."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "mirror"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}/"
        served.shutdown()
        thread.join()


def test_the_real_set(shared_data: Path) -> None:
    parts = mnist(root=str(shared_data / "mnist"), image_size=None, download=False)
    assert [len(part) for part in parts] == [55_000, 5000, 10_000]
    assert parts.test.shape == (1, 28, 28)
    assert parts.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    # The published mean of the training pixels, here over all 60,000.
    total = sum(int(part.read(torch.arange(len(part))).sum(dtype=torch.int64)) for part in (parts.train, parts.valid))
    assert total / (255 * 60_000 * 784) == pytest.approx(0.1307, abs=5e-5)
    assert torch.bincount(torch.cat([parts.train.labels, parts.valid.labels])).tolist()[:3] == [5923, 6742, 5958]


@pytest.mark.parametrize("below", ["", "MNIST/raw"])
@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (bytes, "")])
def test_every_layout(tmp_path: Path, below: str, pack, suffix: str) -> None:
    contents = write(tmp_path / below, pack, suffix)
    parts = mnist(root=str(tmp_path), image_size=None, download=False, n_valid=2)
    assert [len(part) for part in parts] == [10, 2, 12]
    pixels = np.frombuffer(contents["t10k-images-idx3-ubyte"], np.uint8, offset=16)
    assert np.array_equal(parts.test.read(torch.arange(12)).numpy().ravel(), pixels)
    assert parts.test.labels.tolist() == list(contents["t10k-labels-idx1-ubyte"][8:])
    assert mnist(root=str(tmp_path), download=False, n_valid=2).train.shape == (1, 32, 32)


def test_missing_files_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"lacks t10k-labels-idx1-ubyte \(or the same as \.gz\)"):
        mnist(root=str(tmp_path), download=False)


@pytest.mark.parametrize("there", [1, 2, 3])
def test_a_folder_that_holds_some_files_is_never_filled_up(tmp_path: Path, server: str, there: int) -> None:
    """The others may be another set's: Fashion-MNIST with MNIST's labels trains, and means nothing."""
    write(tmp_path / "mirror")
    write(tmp_path / "root")
    missing = list(FILES)[there:]
    for name in missing:
        (tmp_path / "root" / f"{name}.gz").unlink()
    with pytest.raises(UserError, match=rf"lacks {', '.join(missing)} .* not fetched"):
        mnist(root=str(tmp_path / "root"), mirrors=(server,))
    assert len(list((tmp_path / "root").iterdir())) == there


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(11, np.uint8))))
    with pytest.raises(UserError, match="12 images for 11 labels"):
        mnist(root=str(tmp_path), download=False)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, n=12)
    mnist(root=str(tmp_path), download=False, n_valid=2)
    write(tmp_path, n=20)
    assert len(mnist(root=str(tmp_path), download=False, n_valid=2).test) == 20


def test_fetches_all_four(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = write(tmp_path / "mirror")
    sums = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    for name, value in sums.items():
        monkeypatch.setitem(FILES, name, value)
    root = tmp_path / "root"
    # The first mirror has nothing; the next one serves.
    parts = mnist(root=str(root), n_valid=2, mirrors=(f"{server}nothing/", server))
    assert len(parts.train) == 10
    assert sorted(path.name for path in root.iterdir()) == sorted(f"{name}.gz" for name in FILES)


@pytest.mark.parametrize("kind", ["another set", "truncated", "not gzip"])
def test_what_is_not_mnist_is_not_kept(tmp_path: Path, server: str, kind: str) -> None:
    write(tmp_path / "mirror")
    if kind != "another set":
        for path in (tmp_path / "mirror").iterdir():
            path.write_bytes(path.read_bytes()[:-9] if kind == "truncated" else b"<html>")
    why = {"another set": "MD5", "truncated": "cannot be read", "not gzip": "not an IDX"}[kind]
    with pytest.raises(UserError, match=f"could not be fetched .*{why}"):
        mnist(root=str(tmp_path / "root"), mirrors=(server,))
    assert list((tmp_path / "root").iterdir()) == []


def test_no_network_says_which_files_to_put_where(tmp_path: Path) -> None:
    # Port 9 of loopback refuses.
    with pytest.raises(UserError, match="could not be fetched") as caught:
        mnist(root=str(tmp_path / "root"), mirrors=("http://127.0.0.1:9/",))
    message = str(caught.value)
    assert all(f"{name}.gz" in message for name in FILES)
    assert f"into {tmp_path / 'root'}" in message
    assert "\n" not in message


def test_real_files_pass_the_check_they_are_fetched_with(shared_data: Path, tmp_path: Path, server: str) -> None:
    (tmp_path / "mirror").mkdir()
    for name in FILES:
        shutil.copy(shared_data / "mnist" / f"{name}.gz", tmp_path / "mirror")
    parts = mnist(root=str(tmp_path / "root"), mirrors=(server,), n_valid=1000)
    assert [len(part) for part in parts] == [59_000, 1000, 10_000]
