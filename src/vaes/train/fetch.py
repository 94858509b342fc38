"""Runs that lie elsewhere, by URL: fetched into a folder of the cache, and opened there like any other."""

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

from vaes import files
from vaes.data.cache import place_for
from vaes.errors import UserError
from vaes.remote import Store, is_url, speaking
from vaes.terminal import escape
from vaes.train import checkpoint
from vaes.train.folder import refuse_existing
from vaes.train.mirror import COPIED, FILES, PICTURES, WHOLE

__all__ = ["fetch", "local", "restore"]

TRIES = 5
"""How often what is written there while it is read is read anew."""

PLAIN = re.compile(r"((samples|plane)/)?\w[\w.-]*\.(safetensors|json|jsonl|yaml|txt|png|npz)", re.ASCII)
"""What is fetched beside checkpoints: of names that lead nowhere else, and of kinds that are data."""

logger = logging.getLogger(__name__)


def local(where: str | Path) -> Path:
    """A path as it is, and for a URL the folder that it was fetched into."""
    return fetch(str(where)) if is_url(where) else Path(where)


def fetch(url: str) -> Path:
    """A run, checkpoint or weights file of a URL, as it is there now, on this machine. Checkpoints are verified, and
    those that are here already are not fetched again.

    Raises:
        UserError: it cannot be reached, or holds no whole checkpoint.
    """
    store = Store(url)
    home = place_for("remote") / hashlib.sha256(store.url.encode()).hexdigest()[:16]
    folder = home / re.sub(r"[^\w.-]", "_", store.name)
    with speaking(escape(url)):
        home.mkdir(parents=True, exist_ok=True)
        with files.locked(home / ".lock", timeout=3600):
            for left in reversed(range(TRIES)):
                try:
                    if _taken(store, folder, url, last=not left):
                        return folder
                except FileNotFoundError:  # deleted there since it was listed
                    if not left:
                        raise
    raise AssertionError("the last try gives or raises")


def restore(url: str, folder: Path) -> None:
    """Fetch the run of a URL into a new run folder, to go on in it.

    Raises:
        UserError: see :func:`fetch`; there is no run, or the folder is there.
    """
    refuse_existing(folder)
    found = fetch(url)
    if not (found / FILES[0]).is_file() or not checkpoint.checkpoints(found):
        raise UserError(f"--resume {escape(url)}: is no run folder; give the URL that a training's train.mirror named")
    aside = folder / ".fetched"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    names = sorted(
        (name for name in COPIED if (found / name).exists()), key=lambda name: (name == FILES[0], name == "ckpt")
    )
    for name in names:
        (shutil.copytree if (found / name).is_dir() else shutil.copy2)(found / name, aside / name)
    for name in names:  # without the last there is nothing to go on from
        (aside / name).rename(folder / name)
    aside.rmdir()


def _taken(store: Store, folder: Path, url: str, *, last: bool) -> bool:
    """Whether what is there now was fetched; the last try takes what it can."""
    there = store.names()
    if not there:
        if not store.is_file():
            raise UserError(f"{escape(url)}: holds nothing; give the URL of a run, a checkpoint or a weights file")
        files.write_atomic(folder, lambda path: store.get("", path))
        return True
    folder.mkdir(exist_ok=True)
    whole = sorted((match[1] for name in there if (match := WHOLE.fullmatch(name))), key=int, reverse=True)
    found = {step: _checkpoint(store, f"step{step}", folder / "ckpt") for step in whole}
    faults = {step: text for step, text in found.items() if text is not None}
    if faults and not last:
        return False
    plain = [name for name in there if PLAIN.fullmatch(name)]
    if len(faults) == len(whole) and checkpoint.MODEL not in plain:
        raise UserError(f"{escape(url)}: holds no whole checkpoint{''.join(f' ({text})' for text in faults.values())}")
    for text in faults.values():
        logger.warning("%s: %s", escape(url), text)
    _drop(folder, {*plain, *(f"ckpt/step{step}" for step in found.keys() - faults.keys())})
    for name in plain:
        (folder / name).parent.mkdir(exist_ok=True)
        if "/" in name and (folder / name).is_file() and (folder / name).stat().st_size == there[name]:
            continue  # a picture, which never changes
        files.write_atomic(folder / name, lambda path, name=name: store.get(name, path))  # type: ignore[misc]
    return True


def _checkpoint(store: Store, name: str, ckpt: Path) -> str | None:
    """Fetch a checkpoint, if it is not here; what is wrong with it there."""
    final, temporary = ckpt / name, ckpt / f".{name}.{os.getpid()}.tmp"
    state = store.read(f"ckpt/{name}/{checkpoint.STATE}")
    here = final / checkpoint.STATE
    if here.is_file() and here.read_bytes() == state and checkpoint.fault(final) is None:
        return None
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for file in (checkpoint.MODEL, checkpoint.TRAINING):
            store.get(f"ckpt/{name}/{file}", temporary / file)
        (temporary / checkpoint.STATE).write_bytes(state)
        if found := checkpoint.fault(temporary):
            return found.replace(str(temporary), f"ckpt/{name}")
        files.replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return None


def _drop(folder: Path, there: set[str]) -> None:
    """Delete what is copied of a run and is not there any more; what commands left here stays."""
    for path in checkpoint.checkpoints(folder):
        if f"ckpt/{path.name}" not in there:
            files.remove(path)
    pictures = [str(path.relative_to(folder)) for name in PICTURES for path in (folder / name).glob("*")]
    for name in (*FILES, *pictures):
        if name not in there:
            (folder / name).unlink(missing_ok=True)
