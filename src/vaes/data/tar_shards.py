"""Tar shards in the layout of WebDataset, read with the standard library: their own order is all that exact resume
needs, and nothing in them is unpickled."""

import glob
import itertools
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from vaes.data.decode import Channels, Fit, image_suffixes
from vaes.data.decoding import Wanted
from vaes.data.layout import split_of
from vaes.data.picture_files import MAX_FILE_BYTES, digest, stamp
from vaes.data.picture_folder import check_white
from vaes.data.resize import height_width
from vaes.data.roots import regular
from vaes.data.shard_splits import Streaming, shard_splits
from vaes.data.splits import Splits, some
from vaes.data.stream import DamagedShardError, Sample, Shards
from vaes.data.tar_files import TROUBLE
from vaes.errors import UserError

__all__ = ["TarShards", "braces", "webdataset"]

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MAX_SHARDS = 2**20

MAX_JSON = 2**20


def webdataset(
    *,
    root: str | tuple[str, ...],
    valid_root: str | tuple[str, ...] | None = None,
    test_root: str | tuple[str, ...] | None = None,
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
    """The pictures of tar shards in the layout of WebDataset: the members of a sample lie side by side and share their
    name up to its first dot, `000017.jpg` and `000017.cls` say.

    A shard is a path or an address that fsspec opens. Labels are the numbers or texts of `.cls`, or of the key `label`
    of `.json`; there are none unless every sample has one. How pictures are decoded: see `folder`. How they are held
    out, stored or streamed: see `vaes.data.shard_splits.shard_splits`.

    Raises UserError for shards that are missing, damaged or hold no pictures.

    Args:
        root: tar shards: a folder of them, a pattern with braces ({000..127}) or stars, an address (s3://...), or a
            list of these.
        valid_root: shards of validation images; null holds some out.
        test_root: shards of test images; null holds some out.
        label: the key of the label in a sample's .json; null takes what is in .cls.
        streaming: train on images as they come, for sets larger than disk or memory; false decodes all into the cache.
        shuffle_buffer: images among which the next of a stream is drawn, in each process.
        first: images that are looked at before a stream begins: what is held out is chosen among them.
        timeout: seconds without an image after which a stream is given up, and the training saved.
        length: images in all shards of a stream, for objectives that depend on it (beta_tcvae).
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
    roots = {"train": ("root", root), "valid": ("valid_root", valid_root), "test": ("test_root", test_root)}
    parts: dict[str, Shards] = {
        name: TarShards(given, f"data.{key}", label) for name, (key, given) in roots.items() if given is not None
    }
    for (name, one), (other, two) in itertools.combinations(parts.items(), 2):
        if both := sorted(set(one.names) & set(two.names)):
            key = f"data.{roots[other][0]}"
            raise UserError(f"{key}: {some(both, 1)} is a shard of {name} as well; give each to one split")
    wanted = Wanted(channels, height_width(image_size), fit, white, skip_bad)
    how = Streaming(streaming, shuffle_buffer, first, timeout, length)
    return shard_splits("webdataset", parts, wanted, how, label=label, n_valid=n_valid, n_test=n_test, seed=seed)


class TarShards(Shards):
    """The tars that a pattern, or several, stand for; UserError, naming `key`, where there are none."""

    def __init__(self, given: str | tuple[str, ...], key: str, label: str | None = None) -> None:
        patterns = (given,) if isinstance(given, str) else given
        self.paths = [path for pattern in patterns for path in _expand(pattern, key)]
        self.label = ", ".join(patterns)
        if not self.paths:
            raise UserError(f"{key}: {self.label} stands for no tar shard; give their folder, a pattern or a list")
        if len(set(self.paths)) != len(self.paths):
            raise UserError(f"{key}: {self.label} names a shard twice; give each once")
        for path in self.paths:
            if "://" not in path:
                regular(Path(path), key)
        self.names = self.paths
        self._key = label
        sizes = [None if "://" in path else Path(path).stat().st_size for path in self.paths]
        self.fingerprint = digest([[Path(path).name for path in self.paths], sizes])
        self.stamp = digest([label, *(path if "://" in path else stamp(Path(path)) for path in self.paths)])

    def samples(self, shard: int) -> Iterator[Sample]:
        """The samples of a shard."""
        path = self.paths[shard]
        with _open(path) as file:
            held: dict[str, bytes] = {}
            name = ""
            try:
                with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as archive:
                    for member in archive:
                        archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                        if not member.isreg() or (content := archive.extractfile(member)) is None:
                            continue
                        folder, _, base = member.name.rpartition("/")
                        stem, dot, kind = base.partition(".")
                        if not dot or not stem:
                            continue
                        if (found := f"{folder}/{stem}".lstrip("/")) != name:
                            yield from self._sample(path, name, held)
                            name, held = found, {}
                        if member.size > MAX_FILE_BYTES:
                            raise DamagedShardError(f"{member.name} has {member.size:,} bytes")
                        held[kind.lower()] = content.read()
            except TROUBLE as error:
                if isinstance(error, UserError):
                    raise
                if isinstance(error, OSError) and error.errno is not None:
                    raise UserError(f"{path}: cannot be read ({error.strerror}); see to it") from error
                raise DamagedShardError(" ".join(str(error).split()) or type(error).__name__) from error
            yield from self._sample(path, name, held)

    def _sample(self, path: str, name: str, held: dict[str, bytes]) -> Iterator[Sample]:
        kinds = [kind for kind in held if f".{kind.rpartition('.')[2]}" in image_suffixes()]
        if kinds:
            label = self._label(path, name, held)
            yield Sample(f"{name}.{kinds[0]}", held[kinds[0]], label)

    def _label(self, path: str, name: str, held: dict[str, bytes]) -> int | str | None:
        value: Any = None
        if self._key is None:
            if (content := held.get("cls")) is not None:
                value = content[:MAX_JSON].decode("utf-8", errors="replace").strip()
        elif (content := held.get("json")) is not None:
            try:
                found = json.loads(content[:MAX_JSON])
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}/{name}.json: cannot be read ({error})") from None
            if not isinstance(found, dict) or self._key not in found:
                there = f"it has {', '.join(sorted(found)[:8])}" if isinstance(found, dict) else "it is no object"
                raise UserError(f"data.label: {path}/{name}.json has no {self._key!r}; {there}")
            value = found[self._key]
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            return int(value)
        return value if isinstance(value, int | str) and not isinstance(value, bool) else None


class _Member(tarfile.TarInfo):
    """A member; a header that cannot be read is the archive's end for tarfile, and damage here."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it ends early") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def braces(pattern: str) -> Iterator[str]:
    """What a pattern with braces stands for.

    >>> list(braces("a{08..10}.{tar,tgz}"))
    ['a08.tar', 'a08.tgz', 'a09.tar', 'a09.tgz', 'a10.tar', 'a10.tgz']
    """
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        yield pattern
        return
    inner = match[1]
    if span := re.fullmatch(r"(\d{1,12})\.\.(\d{1,12})", inner):
        low, high = int(span[1]), int(span[2])
        if high - low >= MAX_SHARDS:
            raise UserError(f"data.root: {pattern} stands for {high - low + 1:,} shards; give fewer")
        middle = [str(i).zfill(len(span[1])) for i in range(low, high + 1)]
    else:
        middle = inner.split(",")
    for text in middle:
        yield from braces(pattern[: match.start()] + text + pattern[match.end() :])


def _expand(pattern: str, key: str) -> list[str]:
    found: list[str] = []
    for each in braces(pattern):
        several = any(c in each for c in "*?[")
        if "://" in each:
            some_of = _remote(each, key)
        elif several:
            some_of = sorted(glob.glob(each))
        elif several := Path(each).is_dir():
            some_of = sorted(str(path) for path in Path(each).iterdir() if path.name.endswith(SUFFIXES))
        else:
            some_of = [each]
        if several:
            _check_one_split(each, some_of, key)
        found += some_of
    return found


def _check_one_split(pattern: str, paths: list[str], key: str) -> None:
    """UserError where a folder or a star takes the shards of several splits for those of one."""
    splits: dict[str, str] = {}
    for path in paths:
        for word in re.split(r"[^A-Za-z]+", path.rpartition("/")[2]):
            if split := split_of(word):
                splits.setdefault(split, f"{word}*")
                break
    if len(splits) > 1:
        keys = {"train": "data.root", "valid": "data.valid_root", "test": "data.test_root"}
        raise UserError(
            f"{key}: {pattern} holds shards of {' and '.join(splits)}; name each split's own: "
            + ", ".join(f"{keys[split]} {name}" for split, name in sorted(splits.items(), key=lambda one: keys[one[0]]))
        )


def _remote(address: str, key: str) -> list[str]:
    fsspec = _fsspec(key)
    if not any(c in address for c in "*?["):
        return [address]
    try:
        system, path = fsspec.core.url_to_fs(address)
        return sorted(str(system.unstrip_protocol(found)) for found in system.glob(path))
    except Exception as error:  # as many as there are file systems
        raise UserError(f"{key}: {address} cannot be listed ({type(error).__name__}: {error})") from None


def _open(path: str) -> IO[bytes]:
    try:
        if "://" not in path:
            return open(path, "rb")
        opened: IO[bytes] = _fsspec("data.root").open(path, "rb").open()
        return opened
    except UserError:
        raise
    except Exception as error:  # as many as there are file systems
        raise UserError(f"{path}: cannot be opened ({type(error).__name__}: {error}); see to it") from None


def _fsspec(key: str) -> Any:
    try:
        import fsspec
    except ImportError:
        raise UserError(f"{key}: addresses need fsspec: pip install fsspec") from None
    return fsspec
