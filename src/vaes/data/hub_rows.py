"""Data sets of the Hugging Face Hub, or folders in a layout that its library `datasets` reads."""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vaes.data.decode import Channels, Fit
from vaes.data.decoding import Wanted
from vaes.data.layout import split_of
from vaes.data.picture_files import MAX_FILE_BYTES, digest, stamp
from vaes.data.picture_folder import check_white
from vaes.data.resize import height_width
from vaes.data.shard_splits import Streaming, shard_splits
from vaes.data.splits import Splits, some
from vaes.data.stream import DamagedShardError, Sample, Shards
from vaes.errors import UserError

__all__ = ["HubRows", "hub"]

ROWS = 1000
"""Rows of a saved data set that are read as one shard."""


def hub(
    *,
    root: str,
    subset: str | None = None,
    revision: str | None = None,
    split: str = "train",
    valid_split: str | None = None,
    test_split: str | None = None,
    image: str | None = None,
    label: str | None = None,
    streaming: bool = False,
    shuffle_buffer: int = 1000,
    first: int = 2000,
    timeout: float = 60.0,
    length: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    fit: Fit = "refuse",
    channels: Channels = "auto",
    white: int | None = None,
    skip_bad: bool = False,
    n_valid: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
) -> Splits:
    """The pictures of a data set on the Hugging Face Hub, by its name, or of a folder: one that `save_to_disk` wrote,
    or one of parquet files, pictures and whatever else `datasets.load_dataset` reads.

    Labels are whole numbers or texts of the column `label`. Nothing in a data set is run. How pictures are decoded: see
    `folder`. How they are held out, stored or streamed: see `vaes.data.shard_splits.shard_splits`.

    Raises UserError for a set that is not there or cannot be reached, and a column that is no image.

    Args:
        root: a name on the Hugging Face Hub (USER/NAME), or a folder that the library `datasets` reads.
        subset: the configuration of a set that has several.
        revision: a branch, tag or commit of a set on the Hub.
        split: the split to train on.
        valid_split: the split of validation images; null takes the set's own, or holds some out where it has none.
        test_split: the split of test images; null takes the set's own, or holds some out where it has none.
        image: the column of pictures; null takes the only one.
        label: the column of labels; null takes the only one of classes.
        streaming: train on images as they come, for sets larger than disk or memory; false decodes all into the cache.
        shuffle_buffer: images among which the next of a stream is drawn, in each process.
        first: images that are looked at before a stream begins: what is held out is chosen among them.
        timeout: seconds without an image after which a stream is given up, and the training saved.
        length: images of a stream, for objectives that depend on it (beta_tcvae); null where the set itself tells.
        image_size: a side, or height and width, that all are brought to; null takes them as they are.
        fit: what becomes of pictures of another shape: refuse, crop to the middle, pad with black, stretch.
        channels: 1 is grey, 3 colour; auto is grey where all pictures (of a stream: those looked at first) are.
        white: the value that becomes white, in files of more than 8 bits; null finds it.
        skip_bad: leave out pictures that cannot be decoded and the rest of damaged shards, and count them.
        n_valid: how many are held out for validation; null is a twentieth (of a stream: of those looked at first).
        n_test: how many are held out for testing; null is a tenth (of a stream: of those looked at first).
        seed: chooses the images that are held out.
    """
    check_white(white)
    if importlib.util.find_spec("datasets") is None:
        raise UserError("data.kind: hub needs the library datasets; install it: pip install 'vaes[hub]'")
    there = _open(root, subset, revision)
    if valid_split is None and n_valid is None:
        valid_split = _own(there, "valid", split, test_split)
    if test_split is None and n_test is None:
        test_split = _own(there, "test", split, valid_split)
    names = {"train": ("split", split), "valid": ("valid_split", valid_split), "test": ("test_split", test_split)}
    parts: dict[str, Shards] = {
        name: HubRows(there, root, f"data.{key}", given, image, label)
        for name, (key, given) in names.items()
        if given is not None
    }
    said = [f"{name} is the set's split {given!r}" for name, (_, given) in names.items() if given is not None]
    if unread := sorted(set(there) - {given for _, given in names.values()}):
        said.append(f"not read: {some(unread)}")
    parts["train"].remark = "; ".join(filter(None, (parts["train"].remark, *said)))
    wanted = Wanted(channels, height_width(image_size), fit, white, skip_bad)
    how = Streaming(streaming, shuffle_buffer, first, timeout, length)
    return shard_splits("hub", parts, wanted, how, label=label, n_valid=n_valid, n_test=n_test, seed=seed)


def _own(there: dict[str, Any], wanted: str, *taken: str | None) -> str | None:
    """The set's own split of a kind, where it has one that nothing else takes."""
    return next((name for name in there if split_of(name) == wanted and name not in taken), None)


class HubRows(Shards):
    """A split of what `_open` gave; its shards are the set's own, or pieces of `ROWS` rows of a saved one."""

    def __init__(
        self, there: dict[str, Any], root: str, key: str, split: str, image: str | None, label: str | None
    ) -> None:
        import datasets

        if split not in there:
            raise UserError(f"{key}: {root} has no split {split!r}; it has {some(sorted(there))}")
        self.label = f"{root} ({split})"
        with _reaching(self.label):
            found = there[split]()
            features = found.features or found._resolve_features().features
        self._image = _image_column(features, root, image)
        if label is None:
            label, self.remark = _class_column(features)
        self._label = label
        if label is not None and label not in features:
            raise UserError(f"data.label: {root} has no column {label!r}; it has {some(sorted(features))}")
        if label is not None and isinstance(features[label], datasets.ClassLabel):
            self.label_names = tuple(features[label].names)
        columns = [self._image, *([] if label is None else [label])]
        self._rows = found.select_columns(columns).cast_column(self._image, datasets.Image(decode=False))
        self._saved = isinstance(found, datasets.Dataset)
        n = -(-len(found) // ROWS) if self._saved else found.num_shards
        told = (found.info.splits or {}).get(split) if found.info is not None else None
        self.length = len(found) if self._saved else getattr(told, "num_examples", None)
        self.names = [f"{self.label} shard {i}" for i in range(n)]
        files = _files(there, split, found)
        local = [Path(name) for name in files if "://" not in name and Path(name).is_file()]
        sizes = [path.stat().st_size for path in local]
        self.fingerprint = digest([split, columns, n, [Path(name).name for name in files], sizes])
        self.stamp = digest([columns, files, [stamp(path) for path in local], found._fingerprint if not files else ""])

    def samples(self, shard: int) -> Iterator[Sample]:
        """The samples of a shard."""
        first = shard * ROWS if self._saved else 0
        for number, row in enumerate(self._read(shard), start=first):
            label = None if self._label is None else row[self._label]
            if isinstance(label, bool) or not isinstance(label, int | str) or label == -1:
                label = None
            yield Sample(f"row {number}", self._content(row[self._image]), label)

    def _read(self, shard: int) -> Iterator[dict[str, Any]]:
        import pyarrow

        try:
            if self._saved:
                n = len(self._rows)
                for i in range(shard * ROWS, min(n, (shard + 1) * ROWS)):
                    yield self._rows[i]
            else:
                yield from self._rows.shard(len(self.names), shard)
        except pyarrow.ArrowInvalid as error:
            raise DamagedShardError(_first(error)) from error
        except (UserError, MemoryError, GeneratorExit):
            raise
        except Exception as error:  # of pyarrow, of fsspec's file systems, of the network
            if isinstance(error, OSError) and error.errno is None and _of_content(error):
                raise DamagedShardError(_first(error)) from error
            raise UserError(f"{self.names[shard]}: cannot be read ({_first(error)}); see to it") from error

    def _content(self, value: Any) -> bytes:
        """The bytes of a picture; none where there is none, which then cannot be decoded."""
        if value is None:
            return b""
        if value["bytes"] is not None:
            return bytes(value["bytes"])
        from datasets.utils.file_utils import xopen

        with contextlib.suppress(OSError), xopen(value["path"], "rb") as file:
            return bytes(file.read(MAX_FILE_BYTES + 1)[:MAX_FILE_BYTES])
        return b""


def _open(root: str, subset: str | None, revision: str | None) -> dict[str, Any]:
    """What opens each split of a set, by its name."""
    import datasets

    folder = Path(root)
    with _reaching(root):
        if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
            saved = datasets.load_from_disk(root)
            sets = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
            return {name: (lambda found=found: found) for name, found in sets.items()}
        if folder.exists() and not folder.is_dir():
            raise UserError(f"data.root: {root} is a file; give the folder that it lies in, or a name on the Hub")
        if folder.is_absolute() and not folder.exists():
            raise UserError(f"data.root: {root} does not exist; give a folder, or a name on the Hub (USER/NAME)")
        builder = datasets.load_dataset_builder(root, subset, revision=revision)
        files = builder.config.data_files or {}
        names = [str(name) for name in (builder.info.splits or files)]
        opened: dict[str, Any] = {name: (lambda name=name: builder.as_streaming_dataset(split=name)) for name in names}
        for name in names:
            opened[name].files = [str(path) for path in files.get(name, ())]
        return opened


def _files(there: dict[str, Any], split: str, found: Any) -> list[str]:
    own = getattr(there[split], "files", None)
    return own if own is not None else [str(each["filename"]) for each in getattr(found, "cache_files", ())]


def _image_column(features: Any, root: str, image: str | None) -> str:
    import datasets

    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    there = f"those of pictures are {some(sorted(pictures))}" if pictures else "it has none of pictures"
    if image is None:
        if len(pictures) != 1:
            raise UserError(f"data.image: name the column of pictures of {root}; {there}")
        return pictures[0]
    if image not in features:
        raise UserError(f"data.image: {root} has no column {image!r}; {there}")
    if image not in pictures:
        raise UserError(f"data.image: the column {image!r} of {root} holds no pictures; {there}")
    return image


def _class_column(features: Any) -> tuple[str | None, str]:
    """The only column of classes, and what to say of the choice."""
    import datasets

    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if len(classes) == 1:
        return classes[0], f"labels from the column {classes[0]!r}"
    others = [name for name, one in features.items() if getattr(one, "dtype", "") in ("string", "int64", "int32")]
    could = classes or others
    return None, f"no labels are read; columns that data.label could name: {some(sorted(could))}" if could else ""


@contextlib.contextmanager
def _reaching(root: str) -> Iterator[None]:
    """Inside, whatever the library raises is a sentence."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of the library, pyarrow, fsspec, the network: there is no common type
        raise UserError(
            f"data.root: {root} cannot be opened ({type(error).__name__}: {_first(error)}); give a folder, or the name "
            "of a set on the Hub that can be reached (HF_HUB_OFFLINE is off, HF_TOKEN where it is private)"
        ) from None


def _of_content(error: OSError) -> bool:
    return any(word in str(error) for word in ("deserialize", "Parquet", "Corrupt", "Unexpected end"))


def _first(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
