"""Shards of tar and rows of `datasets`, stored and streamed; local files alone."""

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaes import Experiment
from vaes.data import Splits, hub, webdataset
from vaes.data.batches import StreamBatches
from vaes.data.hashing import content_hashes
from vaes.data.stream import Reader, Sample, Shards, ahead
from vaes.data.tar_shards import TarShards, braces
from vaes.errors import UserError

SMALL = {"shuffle_buffer": 16, "first": 40, "n_valid": 4, "n_test": 6}


def picture(i: int) -> bytes:
    pixels = np.random.default_rng(i).integers(0, 256, (6, 6), dtype=np.uint8)
    pixels[0, :2] = divmod(i, 256)  # so that it can be told
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def number(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0].long() * 256 + images[:, 0, 0, 1].long()).tolist()


def write(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(6):
        members: dict[str, bytes] = {}
        for i in range(20 * shard, 20 * shard + 20):
            members[f"{i:04}.png"] = picture(i)
            members[f"{i:04}.cls"] = str(i % 3).encode()
            members[f"{i:04}.json"] = json.dumps({"name": "abc"[i % 3]}).encode()
        write(folder / (f"{shard:03}.tar" if shard else "000.tar.gz"), members)
    return folder


def batches(parts: Splits, size: int = 8, rank: int = 0, world: int = 1) -> StreamBatches:
    assert parts.stream is not None
    return StreamBatches(parts.train, parts.stream, size, 0, rank, world)


def run(reader: StreamBatches, steps: int) -> None:
    for step in range(steps):
        reader.read(step)


def test_stored_as_a_folder_is(root: Path) -> None:
    parts = webdataset(root=str(root), n_valid=10, n_test=20)
    assert [len(part) for part in parts] == [90, 10, 20]
    assert parts.stream is None
    seen = [i for part in parts for i in number(part.read(torch.arange(len(part))))]
    assert sorted(seen) == list(range(120))
    rows = torch.arange(len(parts.test))
    assert parts.test.labels.tolist() == [i % 3 for i in number(parts.test.read(rows))]
    named = webdataset(root=str(root), label="name")
    assert named.train.label_names == ("a", "b", "c")


def test_patterns(root: Path) -> None:
    assert list(braces("a{08..10}.{tar,tgz}")) == [f"a{i}.{end}" for i in ("08", "09", "10") for end in ("tar", "tgz")]
    assert len(TarShards(f"{root}/{{001..005}}.tar", "data.root").names) == 5
    assert len(TarShards((f"{root}/00[12].tar", f"{root}/000.tar.gz"), "data.root").names) == 3
    for wrong in (f"{root}/x*.tar", str(root / "009.tar"), (f"{root}/*.tar", f"{root}/001.tar")):
        with pytest.raises(UserError, match=r"data\.root"):
            TarShards(wrong, "data.root")


def test_a_stream_holds_out_by_content_and_gives_the_rest(root: Path) -> None:
    write(root / "006.tar", {f"copy{i:04}.png": picture(i) for i in range(120)})  # held out with what they copy
    parts = webdataset(root=str(root), streaming=True, **SMALL)
    held = {i for part in (parts.valid, parts.test) for i in number(part.read(torch.arange(len(part))))}
    assert held
    stream = batches(parts)
    seen = [i for step in range(200) for i in number(stream.read(step))]
    assert set(seen) == set(range(120)) - held
    assert "streamed from 7 shards through a buffer of 16" in parts.report.sentence


def test_resume_is_exact_and_reads_the_buffer_again(root: Path) -> None:
    parts = webdataset(root=str(root), streaming=True, **SMALL)
    whole = batches(parts)
    wanted = [whole.read(step) for step in range(60)]  # through several passes
    assert len({tuple(number(x)) for x in wanted}) == 60
    for at in (0, 1, 7, 31):
        first, again = batches(parts), batches(webdataset(root=str(root), streaming=True, **SMALL))
        for step in range(at):
            first.read(step)
        again.restore(first.state())
        for step in range(at, at + 20):
            assert torch.equal(again.read(step), wanted[step])


def test_processes_share_the_shards(root: Path) -> None:
    parts = webdataset(root=str(root), streaming=True, **{**SMALL, "shuffle_buffer": 8})
    for world in (2, 9):  # more processes than shards share the samples of each
        ranks = [batches(parts, 2 * world, rank, world) for rank in range(world)]
        seen = [{i for step in range(80) for i in number(rank.read(step))} for rank in ranks]
        assert sum(map(len, seen)) == len(set().union(*seen))
        assert len(set().union(*seen)) == 110
    saved = ranks[0].state() | ranks[1].state()
    with pytest.raises(UserError, match="streamed to 9 processes and now to 1"):
        batches(parts).restore(saved)


def test_other_shards_are_refused_on_resume(root: Path) -> None:
    first = batches(webdataset(root=str(root), streaming=True, **SMALL))
    first.read(0)
    state = first.state()
    other = {**state, "stream.0.slots": state["stream.0.slots"].clone()}
    other["stream.0.slots"][3, 2] += 1  # the checksum of a sample
    with pytest.raises(UserError, match="is not what it was"):
        batches(webdataset(root=str(root), streaming=True, **SMALL)).restore(other)
    (root / "005.tar").unlink()
    with pytest.raises(UserError, match="not the shards"):
        batches(webdataset(root=str(root), streaming=True, **SMALL)).restore(state)


@pytest.mark.parametrize("how", ["truncated", "garbage", "early"])
def test_a_damaged_shard_is_named_or_counted(how: str, root: Path) -> None:
    path = root / "003.tar"
    content = path.read_bytes()
    ends = {"truncated": content[: len(content) // 2 + 700], "early": content[: 512 * 6 * 4]}
    spoilt = content[: 512 * 6 * 4] + b"x" * 5120
    path.write_bytes(ends.get(how, spoilt))
    with pytest.raises(UserError, match=r"003\.tar: damaged"):
        webdataset(root=str(root), n_valid=4, n_test=6)
    stored = webdataset(root=str(root), n_valid=4, n_test=6, skip_bad=True)
    assert 100 < sum(map(len, stored)) < 120
    assert "003.tar" in stored.report.warnings[-1]
    options = {**SMALL, "first": 6, "n_valid": 1, "n_test": 1}  # the damage lies behind what is looked at
    with pytest.raises(UserError, match=r"003\.tar: damaged"):
        run(batches(webdataset(root=str(root), streaming=True, **options)), 30)
    lenient = batches(webdataset(root=str(root), streaming=True, skip_bad=True, **options))
    for step in range(30):
        lenient.read(step)
    assert lenient.passed_over()[1] >= 1
    assert "003.tar" in lenient.news()
    assert not lenient.news()
    again = batches(webdataset(root=str(root), streaming=True, skip_bad=True, **options))
    again.restore(lenient.state())
    assert again.passed_over() == lenient.passed_over()
    assert torch.equal(again.read(30), lenient.read(30))


def test_an_image_that_does_not_fit_is_named_or_counted(root: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (9, 9)).save(file, "PNG")
    write(root / "000.tar.gz", {f"{i:04}.png": file.getvalue() if i > 10 else picture(i) for i in range(30)})
    options = {**SMALL, "first": 12}
    reader = batches(webdataset(root=str(root), streaming=True, **options))
    with pytest.raises(UserError, match=r"000\.tar\.gz/0011\.png: cannot be used \(9x9 and not 6x6"):
        run(reader, 40)
    lenient = batches(webdataset(root=str(root), streaming=True, skip_bad=True, **options))
    for step in range(40):
        lenient.read(step)
    assert lenient.passed_over()[0] >= 19


def test_what_stalls_is_a_sentence() -> None:
    never = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        never.wait()

    found = ahead(items(), 0.2, lambda: "shard 7")
    assert next(found) == 1
    with pytest.raises(UserError, match=r"shard 7: nothing came for 0\.2 s \(data\.timeout\)"):
        next(found)
    never.set()


def test_a_pass_without_images_is_a_sentence(root: Path) -> None:
    class Empty(Shards):
        names, label, fingerprint, stamp = ["a", "b"], "nothing", "", ""

        def samples(self, shard: int) -> Iterator[Sample]:
            return iter(())

    stream = webdataset(root=str(root), streaming=True, **SMALL).stream
    assert stream is not None
    stream.shards = Empty()
    with pytest.raises(UserError, match="gave no image"):
        Reader(stream, 0).take(4, 0)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed (pip install 'vaes[hub]')")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    columns = {
        "picture": [{"bytes": picture(i), "path": None} for i in range(90)],
        "kind": [i % 2 for i in range(90)],
        "text": [str(i) for i in range(90)],
    }
    kinds = datasets.ClassLabel(names=["even", "odd"])
    features = datasets.Features({"picture": datasets.Image(), "kind": kinds, "text": datasets.Value("string")})
    whole = datasets.Dataset.from_dict(columns, features=features)
    whole.save_to_disk(tmp_path / "saved")
    (tmp_path / "parquet").mkdir()
    for i in range(3):
        part = whole.select(range(30 * i, 30 * i + 30))
        part.to_parquet(tmp_path / "parquet" / f"{'test' if i == 2 else 'train'}-{i}.parquet")
    for name in ("even", "odd"):
        (tmp_path / "pictures" / "train" / name).mkdir(parents=True)
    for i in range(40):
        (tmp_path / "pictures" / "train" / ("odd" if i % 2 else "even") / f"{i}.png").write_bytes(picture(i))
    return tmp_path


def test_rows_of_each_layout(rows: Path) -> None:
    saved = hub(root=str(rows / "saved"), label="kind")
    seen = [i for part in saved for i in number(part.read(torch.arange(len(part))))]
    assert sorted(seen) == list(range(90))
    own = hub(root=str(rows / "parquet"), test_split="test", label="kind")
    assert sorted(number(own.test.read(torch.arange(30)))) == list(range(60, 90))
    assert own.test.labels.tolist() == [i % 2 for i in number(own.test.read(torch.arange(30)))]
    assert own.train.label_names == ("even", "odd")
    pictures = hub(root=str(rows / "pictures"), label="label")
    seen = [i for part in pictures for i in number(part.read(torch.arange(len(part))))]
    assert sorted(seen) == list(range(40))


@pytest.mark.parametrize("layout", ["saved", "parquet", "pictures"])
def test_rows_stream_and_resume(layout: str, rows: Path) -> None:
    def opened() -> StreamBatches:
        return batches(hub(root=str(rows / layout), streaming=True, **{**SMALL, "first": 20}))

    whole, first, again = opened(), opened(), opened()
    wanted = [whole.read(step) for step in range(30)]
    for step in range(9):
        first.read(step)
    again.restore(first.state())
    for step in range(9, 30):
        assert torch.equal(again.read(step), wanted[step])
    assert len({i for x in wanted for i in number(x)}) >= 30


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "text"}, "'text' of .* holds no pictures; those of pictures are picture"),
        ({"image": "pic"}, "no column 'pic'; those of pictures are picture"),
        ({"label": "colour"}, "no column 'colour'; it has"),
        ({"split": "tarin"}, r"data\.split: .* no split 'tarin'; it has train"),
        ({"root": "/not/there"}, r"data\.root: /not/there does not exist"),
        ({"root": "nobody/nothing"}, r"data\.root: nobody/nothing cannot be opened"),
        ({"timeout": 0.0}, r"data\.timeout"),
        ({"shuffle_buffer": 0}, r"data\.shuffle_buffer"),
    ],
)
def test_wrong_rows_are_one_sentence(options: dict[str, object], said: str, rows: Path) -> None:
    with pytest.raises(UserError, match=said) as caught:
        hub(**{"root": str(rows / "saved"), **options})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_damaged_parquet_is_named(rows: Path) -> None:
    path = rows / "parquet" / "train-1.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError):
        hub(root=str(rows / "parquet"))


def test_held_out_hashes_are_those_of_the_images(root: Path) -> None:
    parts = webdataset(root=str(root), streaming=True, **SMALL)
    images = parts.test.read(torch.arange(6)).numpy()
    assert parts.test.notes.hashes.tolist() == content_hashes(images).tolist()
    assert not set(content_hashes(images).tolist()) - parts.stream.held


def test_labels_of_some_images_alone_are_said_to_go(root: Path) -> None:
    write(root / "006.tar", {"9000.png": picture(9000)})
    parts = webdataset(root=str(root), n_valid=10, n_test=20)
    assert parts.train.labels is None
    assert any("1 of 121 images have no label" in text and "9000" in text for text in parts.report.warnings)


def test_a_label_asked_for_by_name_is_of_every_image(root: Path, rows: Path) -> None:
    for streaming in (False, True):
        with pytest.raises(UserError, match=r"data\.label: .*no 'text'; it has name"):
            webdataset(root=str(root), label="text", streaming=streaming, **SMALL)  # type: ignore[arg-type]
    write(root / "005.tar", {"9000.png": picture(9000)})
    with pytest.raises(UserError, match=r"data\.label: train: 1 of 101 images have no label 'name' .*9000"):
        webdataset(root=str(root), label="name")
    datasets = pytest.importorskip("datasets", reason="vaes[hub] is not installed")
    kept = datasets.load_from_disk(str(rows / "saved")).remove_columns("text")
    kept.add_column("text", ["a", None] * 45).save_to_disk(str(rows / "holes"))
    with pytest.raises(UserError, match=r"data\.label: train: 45 of 90 images have no label 'text'"):
        hub(root=str(rows / "holes"), label="text")


def test_a_set_s_own_splits_are_taken_and_what_is_not_read_is_said(rows: Path) -> None:
    own = hub(root=str(rows / "parquet"))
    assert sorted(number(own.test.read(torch.arange(len(own.test))))) == list(range(60, 90))
    assert "test is the set's split 'test'" in str(own.report)
    other = hub(root=str(rows / "parquet"), n_test=7)
    assert set(number(other.test.read(torch.arange(7)))) < set(range(60))
    assert "not read: test" in str(other.report)
    turned = hub(root=str(rows / "parquet"), split="test", valid_split="train")
    assert len(turned.valid) == 60
    assert len(turned.train) + len(turned.test) == 30


def test_what_is_left_of_a_split_that_is_looked_at_first_is_said(rows: Path) -> None:
    few = {"streaming": True, "shuffle_buffer": 8, "n_valid": 4}
    short = hub(root=str(rows / "parquet"), first=20, **few)  # type: ignore[arg-type]
    assert len(short.test) == 20
    assert "test is the first 20 images of" in str(short.report)
    assert "test is the first" not in str(hub(root=str(rows / "parquet"), first=60, **few).report)  # type: ignore[arg-type]


def test_shards_of_several_splits_are_not_taken_for_one(root: Path) -> None:
    for shard in range(6):
        path = next(root.glob(f"{shard:03}.tar*"))
        path.rename(root / f"mine-{'val' if shard > 3 else 'train'}-{path.name}")
    for pattern in (str(root), f"{root}/*"):
        with pytest.raises(
            UserError, match=r"holds shards of train and valid; .*data\.root train\*, data\.valid_root val"
        ):
            webdataset(root=pattern)
    train, valid = f"{root}/mine-train-*", f"{root}/mine-val-*"
    assert len(webdataset(root=train, valid_root=valid).valid) == 40
    assert sum(map(len, webdataset(root=(train, valid)))) == 120
    with pytest.raises(UserError, match=r"data\.test_root: .*val-004\.tar and 1 more is a shard of valid as well"):
        webdataset(root=train, valid_root=valid, test_root=valid)


@pytest.mark.parametrize("address", ["pipe:cat shards.tar", "pipe:curl -s https://x/y.tar", "nowhere://x/y.tar"])
@pytest.mark.parametrize("streaming", [False, True])
def test_an_address_that_nothing_opens_is_a_sentence(address: str, streaming: bool) -> None:
    with pytest.raises(UserError, match=r"data\.root|cannot be opened") as caught:
        webdataset(root=address, streaming=streaming)
    assert "\n" not in str(caught.value)
    assert address in str(caught.value)


def test_shards_without_a_picture_are_a_sentence(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {})
    write(tmp_path / "b.tar", {"x.txt": b"x"})
    for streaming in (False, True):
        with pytest.raises(UserError) as caught:
            webdataset(root=str(tmp_path), streaming=streaming)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_only_column_of_classes_is_taken_and_several_are_named(rows: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="vaes[hub] is not installed")
    parts = hub(root=str(rows / "saved"), n_valid=4, n_test=6)
    assert parts.train.label_names == ("even", "odd")
    assert "labels from the column 'kind'" in str(parts.report)
    kept = datasets.load_from_disk(str(rows / "saved"))
    classes = datasets.ClassLabel(names=["x", "y"])
    kept.add_column("colour", [0] * len(kept)).cast_column("colour", classes).save_to_disk(str(tmp_path / "two"))
    parts = hub(root=str(tmp_path / "two"), n_valid=4, n_test=6)
    assert parts.train.labels is None
    assert "no labels are read; columns that data.label could name: colour, kind" in str(parts.report)


def test_the_last_batch_can_be_read_again(root: Path) -> None:
    reader = batches(webdataset(root=str(root), streaming=True, **SMALL))  # type: ignore[arg-type]
    first, second = reader.read(0).clone(), reader.read(1).clone()
    assert torch.equal(reader.read(1), second)
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="step 0"):
        reader.read(0)
    reader.close()


def test_what_is_passed_over_is_told_as_it_doubles(root: Path) -> None:
    for shard in range(1, 6):
        write(root / f"{shard:03}.tar", {f"{i}.png": picture(8 * shard + i) if i % 2 else b"none" for i in range(8)})
    parts = webdataset(root=str(root), streaming=True, skip_bad=True, **SMALL)  # type: ignore[arg-type]
    reader, told = batches(parts, 4), []
    for step in range(30):
        reader.read(step)
        if text := reader.news():
            told.append(sum(reader.passed_over()))
            assert f"{reader.passed_over()[0]:,} images" in text
    assert len(told) > 2
    assert all(told[k + 1] >= 2 * told[k] for k in range(len(told) - 1))
    reader.close()


def test_what_counts_images_wants_their_number(root: Path, tmp_path: Path) -> None:
    data = {"kind": "webdataset", "root": str(root), "streaming": True, **SMALL}
    train = {"n_steps": 2, "batch_size": 8, "trackers": [], "sample_freq": 0}
    model = {"network": {"kind": "mlp", "hidden": [4]}}
    experiment = Experiment(method="beta_tcvae", data=data, model=model, train=train)
    with pytest.raises(UserError, match=r"data\.length: total_correlation depends on the number of training images"):
        experiment.fit(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    told = Experiment(method="beta_tcvae", data={**data, "length": 120}, model=model, train=train)
    assert told.build_data().count == 110
    told.fit(tmp_path / "run")


def test_a_buffer_holds_no_image_twice_at_first_and_no_step_takes_more(root: Path) -> None:
    parts = webdataset(root=str(root), streaming=True, **{**SMALL, "shuffle_buffer": 111})  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=r"data\.shuffle_buffer: 111 where .* has 110 training images; it must be at most"
    ):
        batches(parts).read(0)
    parts = webdataset(root=str(root), streaming=True, **{**SMALL, "shuffle_buffer": 110})  # type: ignore[arg-type]
    batches(parts).read(0)
    with pytest.raises(UserError, match=r"data\.shuffle_buffer: 110 where a process takes 112 images at a step"):
        batches(parts, 112)
