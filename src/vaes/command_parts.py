"""What several commands do with a run before and after what is theirs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaes import config as configuration
from vaes.data import ImageSet, Reading
from vaes.errors import UserError
from vaes.run import Run, load
from vaes.terminal import escape, note
from vaes.train.screen import decoding

__all__ = ["data_of", "import_files", "near", "outlier_keys", "outliers_of", "sized"]


def import_files(paths: Sequence[Path]) -> None:
    """Run the files of ``--import``."""
    for path in paths:
        configuration.import_file(path)


def data_of(run: Run) -> Any:
    """The run's data; what has changed in them is said."""
    with decoding():
        splits = run.data
    for text in (*splits.report.warnings, *run.notes):
        note(f"note: {text}")
    return splits


def sized(run: Run, images: ImageSet, reading: Reading) -> Run:
    """The run as it takes these images; how they were read is said."""
    there = run.at(images.shape[1:])
    brought = len(run.model.z_shape) == 3 and "resized from" in reading.sentence
    kept = "note: that is the run's data.image_size; --data.image_size null leaves pictures their own size"
    for text in filter(None, (reading.sentence, *reading.warnings, there.words_of_size, kept if brought else "")):
        note(text)
    return there


def near(path: Path) -> str:
    """A path as seen from where the user is."""
    here = Path.cwd()
    return escape(path.relative_to(here) if path.is_relative_to(here) else path)


def outliers_of(run: Run, arguments: Sequence[str]) -> ImageSet:
    """The images of a second source, whose keys these are."""
    try:
        return load(run.weights).elsewhere(arguments).experiment.build_data().test
    except UserError as error:
        raise UserError(f"--outliers, read as a data section: {error}") from None


def outlier_keys(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those of the run's own data and those of a second source, the latter spelt as the former."""
    own: list[str] = []
    other: list[str] = []
    to = own
    for word in arguments:
        if word.startswith("--"):
            to = other if word.startswith("--outliers.") else own
        to.append(word.replace("--outliers.", "--data.", 1) if to is other else word)
    return own, other
