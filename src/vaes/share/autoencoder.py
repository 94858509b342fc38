"""A run as a folder of diffusers, with the statistics of its codes."""

from pathlib import Path

from vaes import code_statistics
from vaes.diffusers_folder import to_diffusers, write_folder
from vaes.errors import UserError
from vaes.run import Run

__all__ = ["export_diffusers"]


def export_diffusers(run: Run, folder: Path, *, progress: bool = False) -> tuple[list[Path], list[str]]:
    """Write what ``diffusers.AutoencoderKL.from_pretrained`` loads; returns the paths, and what there is to say.

    The statistics of the codes go along: those in the run folder, or computed from the training images. Where the
    images are gone, ``scaling_factor`` is 1: diffusers' own default is that of one released model.

    Raises:
        UserError: the model is no ``AutoencoderKL``, the run folder holds the statistics of other weights, or the
            folder cannot be written.
    """
    document = to_diffusers(run.model, run.experiment.model, run.image_shape)
    said, notes = {"scaling_factor": 1.0}, []
    try:
        said = run.code_statistics(progress=progress).to_diffusers()
    except UserError as error:
        if (run.folder / code_statistics.FILE).exists():
            raise
        notes.append(f"no statistics of codes go along, and scaling_factor is 1: {error}")
    return write_folder(run.model, document | said, folder), notes
