import io
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from explore.conftest import HOSTILE, Served, pixels
from PIL import Image

import vaes
from vaes.errors import UserError
from vaes.explore import assets
from vaes.explore.pack import pack, unpack
from vaes.explore.server import listen
from vaes.explore.source import Source


def test_arrays_come_back_as_they_were_packed() -> None:
    given = {
        "a": np.arange(7, dtype=np.uint8).reshape(7, 1),
        "b": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    }
    content = pack(given, said="ä", nothing=float("nan"))
    arrays, said = unpack(content)
    assert said == {"said": "ä", "nothing": None}
    for name, array in given.items():
        assert arrays[name].dtype == array.dtype
        assert (arrays[name] == array).all()
    start = 8 + int.from_bytes(content[4:8], "little")
    assert start % 8 == 0
    assert arrays["b"].__array_interface__["data"][0] % 4 == 0


def test_it_decodes_and_encodes_as_the_python_api_does(served: Served, trained: Path, home: Path) -> None:
    run = vaes.load(trained)
    z = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
    status, body, _ = served.api("0/decode", z.tobytes())
    assert status == 200
    found = np.frombuffer(body, np.uint8).reshape(5, 1, 16, 16)
    for picture, code in zip(found, z, strict=True):
        assert (picture == pixels(run, code.tolist())).all()
    path = home / "photos" / "plain" / "3.png"
    arrays, said = unpack(served.api("0/encode", path.read_bytes())[1])
    codes = run.encode([path])
    assert np.allclose(arrays["codes"], codes.mean, atol=1e-6)
    assert said["mse"] == pytest.approx(float(codes.mse[0]), rel=1e-5)


def test_what_is_shown_of_the_test_images_is_what_they_are(served: Served, trained: Path) -> None:
    run = vaes.load(trained)
    arrays, _ = unpack(served.api("0/columns")[1])
    at, test = arrays["index"].copy(), run.data.test
    assert sorted(at.tolist()) == list(range(len(test)))
    codes = run.encode("test")
    for name, column in (("codes", codes.mean), ("mse", codes.mse), ("elbo", codes.elbo)):
        assert np.allclose(arrays[name], column[at], rtol=1e-4, atol=1e-4), name
    assert (arrays["labels"] == test.labels[at].numpy()).all()
    assert np.allclose(arrays["prior"], torch.randn(256, 2, generator=torch.Generator().manual_seed(0)))
    body = served.api(f"0/images?at={at[1]},{at[0]}")[1]
    assert body == test.read(torch.tensor([at[1], at[0]])).numpy().tobytes()
    info = json.loads(served.api("0/info")[1])
    assert sorted(info["labels"]) == sorted(HOSTILE)
    value = [info["dims"]["value"][d] for d in info["dims"]["order"]]
    assert value == sorted(value, reverse=True)


def test_a_latent_plane_is_what_the_training_kept(served: Served, trained: Path) -> None:
    from vaes.view import planes, read_plane

    info = json.loads(served.api("0/info")[1])
    assert info["planes"] == planes(trained)
    assert info["units"]["elbo"] == "nats per image"
    assert info["units"]["lr"] == ""
    step = info["planes"][2]
    arrays, said = unpack(served.api(f"0/plane/{step}")[1])
    kept = read_plane(trained, step)
    sheet = np.asarray(Image.open(io.BytesIO(arrays["sheet"].tobytes())).convert("L")).astype(int)
    tile = sheet[: kept.tiles.shape[2], kept.tiles.shape[3] : 2 * kept.tiles.shape[3]]
    assert np.abs(tile - kept.tiles[1, 0].numpy()).mean() < 6  # pictures lose a little
    assert np.array_equal(arrays["points"], kept.points.numpy())
    assert said == {"limits": list(kept.limits), "names": list(kept.names), "normal": True}
    status, body, _ = served.api("0/plane/59")
    assert status == 422
    assert "no latent plane was kept at step 59" in json.loads(body)["error"]


def test_neighbours_are_the_nearest_of_all_training_images(served: Served, trained: Path) -> None:
    train = vaes.load(trained).data.train
    every = train.read(torch.arange(len(train))).float() / 255
    picture = np.random.default_rng(1).integers(0, 256, (1, 16, 16), np.uint8)
    _, said = unpack(served.api("0/neighbours", picture.tobytes())[1])
    errors = (every - torch.from_numpy(picture) / 255).square().flatten(1).mean(1)
    assert said["mse"] == pytest.approx(errors.sort().values[:12].tolist(), rel=1e-5)
    assert said["among"] == len(train)


def test_nobody_else_is_answered(served: Served) -> None:
    assert served.ask(f"/{served.token}/")[0] == 200
    assert served.ask("/")[0] == 404
    assert served.ask(f"/{served.token[:-1]}/api/runs")[0] == 404
    assert served.api("runs", Host="evil.example")[0] == 403
    assert served.api("runs", Host=f"evil.example:{served.port}")[0] == 403
    assert served.api("runs", Host="127.0.0.1.evil.example")[0] == 403
    assert served.api("0/decode", bytes(8), Origin="http://evil.example")[0] == 403
    assert served.api("0/decode", bytes(8), Origin="null")[0] == 403
    own = f"http://127.0.0.1:{served.port}"
    assert served.api("0/decode", bytes(8), Origin=own)[0] == 200
    headers = served.ask(f"/{served.token}/")[2]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    ["page/../server.py", "page/%2e%2e/server.py", "page/%2e%2e%2fserver.py", "page/vendor", "page/", "page/x.js"],
)
def test_no_path_reaches_the_files(served: Served, path: str) -> None:
    status, body, _ = served.ask(f"/{served.token}/{path}")
    assert status == 404
    assert b"import" not in body


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("0/decode", b"123", 422),
        ("0/decode", np.full(2, np.nan, np.float32).tobytes(), 422),
        ("0/decode", bytes(8 * 4097), 413),
        ("0/encode", b"no picture", 422),
        ("0/encode", b"", 422),
        ("0/encode", bytes(20_000_001), 413),
        ("0/neighbours", b"1", 422),
        ("0/images?at=99999", None, 422),
        ("0/images?at=-1", None, 422),
        ("0/images?at=../../x", None, 422),
        ("0/frame/7", None, 422),
        ("9/info", None, 422),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_sentence(
    served: Served, path: str, body: bytes | None, status: int
) -> None:
    found, answer, _ = served.api(path, body)
    assert found == status
    said = json.loads(answer)["error"]
    assert said
    assert "\n" not in said
    assert "Traceback" not in said


def test_a_picture_that_announces_too_much_is_refused_before_it_is_decoded(served: Served) -> None:
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    status, answer, _ = served.api("0/encode", bomb)
    assert status == 422
    assert "pixels" in json.loads(answer)["error"]


def test_of_a_damaged_run_all_is_shown_that_is_left(served: Served) -> None:
    runs = json.loads(served.api("runs")[1])["runs"]
    assert runs[0]["error"] is None
    assert runs[1]["error"]
    info = json.loads(served.api("1/info")[1])
    assert info["curves"]["train"]["step"]
    assert "z_dim" not in info
    status, answer, _ = served.api("1/decode", bytes(8))
    assert status == 422
    assert json.loads(answer)["error"] == runs[1]["error"]
    step = info["film"][-1]
    assert served.api(f"1/frame/{step}")[1].startswith(b"\x89PNG")


def test_a_run_goes_on_decoding_when_its_folder_and_its_data_vanish(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    source = Source(tmp_path / "run", changes=("--data.root", str(tmp_path / "gone")))
    source.begin().join()
    shutil.rmtree(tmp_path / "run")
    info = source.info()
    assert "gone" in info["data_error"]
    assert source.decode(np.zeros((1, 2), np.float32)).shape == (1, 1, 16, 16)
    assert set(source.columns()) == {"prior"}
    with pytest.raises(UserError):
        source.originals([0])
    source.reload()
    assert source.error is not None
    assert source.run is not None


def test_checkpoints_are_looked_at_side_by_side(served: Served, trained: Path) -> None:
    z = np.array([0.3, -0.7], np.float32)
    for step in map(str, served.sources[0].steps()):
        status, body, _ = served.api(f"0/decode?checkpoint={step}", z.tobytes())
        assert status == 200
        assert np.array_equal(np.frombuffer(body, np.uint8), pixels(vaes.load(trained, checkpoint=step), z).ravel())
    for wrong in ("7", "..", "best", "9" * 30):
        status, body, _ = served.api(f"0/info?checkpoint={wrong}")
        assert (status, b"checkpoint" in body) == (422, True)


def test_a_damaged_checkpoint_stops_none_of_the_others(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    own = Source(trained)
    step = next(step for step in own.steps() if own.run is None or step != own.run.step)
    weights = tmp_path / "run" / "ckpt" / f"step{step:06d}" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    source = Source(tmp_path / "run")
    other = source.at(step)
    assert source.run is not None
    assert other.run is None
    assert f"step{step:06d}" in str(other.error)
    assert other.info()["checkpoints"] == source.steps() == own.steps()
    assert other.info()["curves"]
    source.close()


def test_newer_weights_take_the_place_of_older_ones(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    source = Source(tmp_path / "run", checkpoint="last")
    before = source.run
    source.reload()
    assert source.run is before
    assert before is not None
    before.resume({"train.n_steps": 90})
    source.reload()
    assert source.run is not None
    assert source.run.step == 90


def test_several_clients_at_once_are_each_answered(served: Served, trained: Path) -> None:
    run, wrong = vaes.load(trained), []

    def ask(seed: int) -> None:
        for z in np.random.default_rng(seed).standard_normal((10, 2)).astype(np.float32):
            found = np.frombuffer(served.api("0/decode", z.tobytes())[1], np.uint8)
            wrong.extend([] if (found.reshape(1, 16, 16) == pixels(run, z.tolist())).all() else [z])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with listen("127.0.0.1", 0) as bound, pytest.raises(UserError, match="--port"):
        listen("127.0.0.1", bound.getsockname()[1])
    with pytest.raises(UserError, match="--host"):
        listen("no.such.host.invalid", 0)


def test_the_modules_of_the_page_fit_into_one() -> None:
    import re

    script = assets.bundled()
    assert not re.search(r"^\s*(import|export) ", script, re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names))
    assert "</script" not in script.lower()
    assert "innerHTML" not in "".join(assets.page().values())
