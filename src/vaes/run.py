"""What was trained: a model, where it came from, and what can be done with it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaes import __version__, files
from vaes import config as configuration
from vaes.config import DATA_OF_PYTHON
from vaes.data import ImageSet, Reading, Splits, TensorSet, array_images, pictures, to_float, to_uint8
from vaes.data.array_values import layout
from vaes.data.identity import identify
from vaes.encoding import Codes, encode
from vaes.errors import UserError
from vaes.experiment import Experiment, refuse_difference
from vaes.model import VAE, evaluation
from vaes.randomness import drawn
from vaes.start import data_notes, remember
from vaes.train import checkpoint
from vaes.train.checkpoint import Named
from vaes.train.folder import history
from vaes.train.record import read_lines, test_numbers
from vaes.train.runtime import choose_device

if TYPE_CHECKING:
    from vaes.evaluate.report import Evaluation

__all__ = ["History", "Run", "find_weights", "load", "load_weights"]


class History(NamedTuple):
    """How a run came to be."""

    segments: list[dict[str, Any]]
    """One for each time it was begun or gone on with: step, settings, data, versions, machine, notes."""
    train: list[dict[str, Any]]
    """The lines of means since the line before: step, terms in nats per image, coefficients, learning rate."""
    valid: list[dict[str, Any]]
    """The lines of passes over the validation images."""


class Run:
    """A trained model and where it came from; made by :func:`load` and :meth:`vaes.Experiment.fit`.

    Images that it gives are floats in ``model.value_range``, (N, C, H, W), on the CPU; codes are (N, D).

    Attributes:
        experiment: what was trained.
        model: in evaluation mode, with the weights that its numbers belong to: the average where there is one.
        step: optimiser steps of these weights.
        which: which checkpoint they are, in words; ``asked``: best, last, or the step.
        weights: their file, which may be gone since.
        sha256: the checksum of that file when it was read.
        folder: the run folder, or the folder that the weights file lies in.
        image_shape: (C, H, W).
    """

    def __init__(
        self,
        experiment: Experiment,
        model: VAE,
        *,
        step: int,
        which: str,
        asked: str,
        weights: Path,
        sha256: str,
        image_shape: tuple[int, int, int],
    ) -> None:
        self.experiment, self.model, self.step, self.which = experiment, model, step, which
        self.asked, self.weights, self.sha256, self.image_shape = asked, weights, sha256, image_shape
        in_run = weights.parent.parent.name == "ckpt"
        self.folder = weights.parent.parent.parent if in_run else weights.parent
        self.notes: list[str] = []
        """What was found to have changed in the data, once they are read."""
        self._splits: Splits | None = None

    def __repr__(self) -> str:
        e = self.experiment
        return f"Run({str(self.folder)!r}: {e.method} on {e.data['kind']}, {self.which})"

    def _repr_html_(self) -> str:
        """How a notebook shows it: what it is, test numbers, samples; what cannot be read is left out and said."""
        from vaes.view.card import card
        from vaes.view.decoding import decode, prior_codes
        from vaes.view.layout import sheet

        model, e, picture, notes = self.model, self.experiment, None, []
        low, high = model.value_range
        parts = [f"{name} {e.model[name]['kind']}" for name in ("network", "posterior", "prior", "likelihood")]
        facts = [
            ("checkpoint", self.which),
            ("folder", str(self.folder)),
            ("images", f"{' × '.join(map(str, self.image_shape))}, pixels from {low:g} to {high:g}"),
            ("model", f"{', '.join(parts)}; {model.z_dim} latent dimensions"),
            ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
        ]
        try:
            if numbers := test_numbers(self.folder, self.step):
                notes.append("test numbers: means over images ± half a 95 % interval")
        except UserError as error:
            numbers = []
            notes.append(f"its numbers cannot be read: {error}")
        try:
            with evaluation(model):
                samples = decode(model, prior_codes(model, 24, 0), 24)
            scale = max(1, 72 // max(self.image_shape[1:]))
            picture = sheet(samples, 8, title="Samples from the prior", caption="mean images; seed 0", scale=scale)
        except UserError as error:
            notes.append(f"no samples: {error}")
        return card(f"{e.method} on {e.data['kind']}", facts, numbers, picture, notes)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def history(self) -> History:
        """What the run folder tells of its training; empty for a weights file alone."""
        lines = read_lines(path) if (path := self.folder / "metrics.jsonl").is_file() else []
        segments = [line for line in history(self.folder) if "config" in line]
        return History(segments, *([x for x in lines if x["split"] == s] for s in ("train", "valid")))

    @property
    def data(self) -> Splits:
        """The images that it was trained, validated and tested on, read when they are first asked for.

        Raises:
            UserError: they are gone, or others than those that it was trained on.
        """
        if self._splits is None:
            if self.experiment.data["kind"] == DATA_OF_PYTHON and self.experiment.data["root"] is None:
                raise UserError(
                    f"{self.folder}: its images were given in Python, and are not in the run; give them: "
                    "run.with_data(images), or --data.root FILE.npz"
                )
            self._splits = self._known(self.experiment.build_data())
        return self._splits

    def with_data(self, splits: Splits) -> "Run":
        """Take these images for those that it was trained on; returns the run.

        Raises:
            UserError: they are others, and ``data.changed`` does not say ``accept``.
        """
        self._splits = self._known(configuration.drawn(self.experiment, splits))
        return self

    def _known(self, splits: Splits) -> Splits:
        accept = self.experiment.data["changed"] == "accept"
        self.notes = data_notes(self.folder, identify(splits), accept=accept)
        remember(self.folder, self.step, self.notes)
        return splits

    def elsewhere(self, changes: Sequence[str] | Mapping[str, Any]) -> "Run":
        """The run with other keys of ``data``, as ``--data.root NEW`` arguments or ``{"data.root": "NEW"}``.

        Raises:
            UserError: a key of another section.
        """
        e = self.experiment
        changed = e.replace(changes) if isinstance(changes, Mapping) else Experiment.of(e.to_dict(), changes)
        sections = ("seed", "method", "model", "objective", "train")
        refuse_difference(changed, e, sections, "only keys of data can be given")
        self.experiment, self._splits = changed, None
        return self

    def sample(self, n: int = 64, *, seed: int = 0) -> Tensor:
        """Mean images of n codes from the prior."""
        noise = drawn(self.model.prior.noise, (n,), torch.Generator().manual_seed(seed))
        return self._batched(self.model.sample, noise)

    def decode(self, z: Tensor) -> Tensor:
        """Mean images of codes (N, D)."""
        return self._batched(self.model.decode, z)

    def reconstruct(self, images: Any = "test", *, n: int = 64) -> tuple[Tensor, Tensor]:
        """The first n images, and the mean images of their central codes. See :meth:`encode` for ``images``."""
        found = self.images(images)
        x = self._floats(found, torch.arange(min(n, len(found))))
        return x, self._batched(self.model.reconstruct, x)

    def traverse(self, dim: int, *, n: int = 9, reach: float = 3.0, start: Tensor | None = None) -> Tensor:
        """Mean images along one dimension from -reach to reach, the others as in ``start`` (D,), by default 0."""
        if not 0 <= dim < self.model.z_dim:
            raise UserError(f"dim: {dim} of {self.model.z_dim} latent dimensions; they are counted from 0")
        z = (torch.zeros(self.model.z_dim) if start is None else start.cpu()).repeat(n, 1)
        z[:, dim] = torch.linspace(-reach, reach, n)
        return self.decode(z)

    def encode(self, images: Any = "test", *, seed: int = 0, batch_size: int = 256, progress: bool = False) -> Codes:
        """Codes and numbers of images, a row each.

        Args:
            images: ``train``, ``valid`` or ``test``; paths of image files, folders and archives, or one .npy or .npz;
                an :class:`vaes.data.ImageSet`; uint8 images (N, C, H, W), (N, H, W, C) or (N, H, W); or floats (N, C,
                H, W) in the model's value range.
            seed: of the draws that ELBO and distortion are means over.
            batch_size: images at a time.
            progress: show a bar on a terminal.
        """
        return encode(self.model, self.images(images), seed=seed, batch_size=batch_size, progress=progress)

    def images(self, source: Any) -> ImageSet:
        """A set of what :meth:`encode` takes.

        Raises:
            UserError: of another shape than the model's, or nothing that is known.
        """
        if isinstance(source, str) and source in ("train", "valid", "test"):
            found: ImageSet = getattr(self.data, source)
        elif isinstance(source, ImageSet):
            found = source
        elif isinstance(source, Tensor | np.ndarray):
            x = torch.as_tensor(source)
            if x.dtype != torch.uint8:
                x = to_uint8(x, self.model.value_range)
            found = TensorSet(layout(tuple(x.shape), "images").images(x).contiguous())
        else:
            found, _ = self.read_images([source] if isinstance(source, str | Path) else source)
        if found.shape != self.image_shape:
            raise UserError(f"images of {found.shape} where the model takes {self.image_shape}, both (C, H, W)")
        return found

    def read_images(self, paths: Iterable[str | Path], *, skip_bad: bool = False) -> tuple[ImageSet, Reading]:
        """Image files, folders and archives, or one .npy or .npz, read as the run's own data were (``data.fit``, the
        depth or the range of their values), and how that went."""
        names = [Path(path) for path in paths]
        if len(names) == 1 and names[0].suffix.lower() in (".npy", ".npz"):
            data, given = self.experiment.data, ("image_size", "value_range")
            return array_images(names[0], **({k: data[k] for k in given} if data["kind"] == "arrays" else {}))
        options = {key: value for key in ("fit", "white") if (value := self.experiment.data.get(key)) is not None}
        segments = self.history.segments
        if "white" not in options and segments and isinstance(white := segments[-1].get("white"), int):
            options["white"] = white
        return pictures(names, self.image_shape, **options, skip_bad=skip_bad)

    def evaluate(
        self,
        only: Sequence[str] | None = None,
        *,
        split: str = "test",
        seed: int = 0,
        features: str = "auto",
        outliers: ImageSet | None = None,
        output: Path | None = None,
        write: bool = True,
        progress: bool = False,
        budget: Mapping[str, int] | None = None,
    ) -> "Evaluation":
        """Every metric of the groups named, or the reason why it has no meaning here.

        Args:
            only: groups, see :func:`vaes.evaluate.evaluate`.
            split: ``train``, ``valid`` or ``test``.
            seed: of every choice and draw.
            features: for sample quality, see :func:`vaes.evaluate.features.find_features`.
            outliers: images of another source.
            output: the folder of ``evaluation.json``, by default the run folder.
            write: add them to it.
            progress: show bars on a terminal.
            budget: fields of :class:`vaes.evaluate.Budget`.
        """
        from vaes.evaluate import report, runner

        options = runner.Budget(**(budget or {}))
        groups = runner.DEFAULT_GROUPS if only is None else tuple(only)
        runner.check(groups, split, options, seed)
        home = self.folder if output is None else output
        if write:
            report.ready(home)
        splits = self.data
        found = runner.evaluate_groups(
            self.model, splits, only=groups, split=split, budget=options, seed=seed, features=features,
            cache=home if write else None, outliers=outliers, progress=progress,
        )  # fmt: skip
        asked = (self.asked,)
        config = self.experiment.to_yaml()
        evaluation = report.Evaluation(self.step, self.sha256, __version__, found, asked, config)
        if write:
            report.add(home, evaluation)
        return evaluation

    def resume(self, changes: Mapping[str, Any] | None = None, **options: Any) -> "Run":
        """Go on training in the run folder, from its last checkpoint: ``run.resume({"train.n_steps": 4000})``.

        ``options`` are those of :meth:`vaes.Experiment.fit`. Returns the run as it is then.
        """
        last = load(self.folder, checkpoint="last").experiment
        given = self._splits if last.data["kind"] == DATA_OF_PYTHON and last.data["root"] is None else None
        return last.replace(changes or {}).fit(self.folder, **{"data": given, "resume": "latest", **options})

    def _floats(self, images: ImageSet, index: Tensor) -> Tensor:
        return to_float(images.read(index.to(images.index_device)), self.model.value_range).cpu()

    @torch.inference_mode()
    def _batched(self, part: Any, x: Tensor, size: int = 256) -> Tensor:
        like = next(self.model.parameters())
        with evaluation(self.model):
            return torch.cat([part(chunk.to(like)).cpu() for chunk in x.split(size)])


def load(
    path: str | Path,
    *,
    checkpoint: str | int | None = None,
    device: str = "cpu",
    expected: Experiment | None = None,
) -> Run:
    """Load a run from its folder, a checkpoint folder or a weights file. Nothing in it is executed.

    Args:
        path: any of the three.
        checkpoint: of a run folder: ``best`` by validation loss, ``last``, or a step; by default the best where there
            was a validation.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        expected: the experiment that the weights are thought to belong to; its data section then takes the place of
            theirs.

    Raises:
        UserError: nothing is there, it is damaged, it carries no configuration, or another one than expected.
    """
    target, checkpoint_name = choose_device(device), None if checkpoint is None else str(checkpoint)
    named, (tensors, metadata, sha256) = _open(Path(path), checkpoint_name)
    weights = named.path
    experiment, shape, step = _experiment(weights, metadata)
    if expected is not None:
        refuse_difference(
            expected, experiment, ("method", "model"), f"{weights}: these weights belong to another configuration"
        )
        experiment = experiment.replace({"data": expected.to_dict()["data"]})
    if experiment.model["network"]["kind"] not in configuration.OWN:
        with torch.device("meta"):  # nothing is allocated before the weights are known to fit, whatever metadata say
            _refuse_misfit(experiment.build_model(shape), tensors, str(weights))
    model = experiment.build_model(shape)
    _refuse_misfit(model, tensors, str(weights))
    model.load_state_dict(tensors)
    return Run(
        experiment,
        model.to(target).eval(),
        step=step,
        which=named.words or f"step {step:,}",
        asked=named.name or str(step),
        weights=weights,
        sha256=sha256,
        image_shape=shape,
    )


def find_weights(path: Path, checkpoint_name: str | None = None) -> Named:
    """The weights file that a path stands for: itself, the one in a checkpoint folder, or one of a run folder's.

    Raises:
        UserError: there is none.
    """
    home = path.resolve() if path.exists() else path
    if home.is_file() or (home / checkpoint.MODEL).is_file():
        if checkpoint_name is not None:
            raise UserError(f"--checkpoint {checkpoint_name}: {path} is one checkpoint; give its run folder to choose")
        return Named(home if home.is_file() else home / checkpoint.MODEL, "", "")
    if (home / "ckpt").is_dir():
        found = checkpoint.named_folder(home, checkpoint_name)
        return found._replace(path=found.path / checkpoint.MODEL)
    what = "does not exist"
    if home.exists():
        what = "holds neither model.safetensors nor ckpt/" if home.is_dir() else "is no regular file"
    raise UserError(f"{path}: {what}; give a weights file, a checkpoint folder or a run folder")


def _open(path: Path, name: str | None) -> tuple[Named, tuple[dict[str, Tensor], dict[str, Any], str]]:
    """Weights, held: a training that goes on beside may delete their file at any moment."""
    for _ in range(20):
        found = find_weights(path, name)
        try:
            return found, files.hold_tensors(found.path)
        except UserError:
            if found.path.exists():
                raise
    raise UserError(f"{path}: its checkpoints are replaced faster than they can be read; give one by --checkpoint STEP")


def _experiment(weights: Path, metadata: Mapping[str, Any]) -> tuple[Experiment, tuple[int, int, int], int]:
    text = metadata.get("config")
    if not text or not isinstance(text, str):
        raise UserError(
            f"{weights}: carries no configuration; build its model in Python and use vaes.load_weights(model, path)"
        )
    raw = configuration.of_weights(metadata, str(weights))
    try:
        experiment = Experiment.of(raw)
    except UserError as error:
        raise UserError(f"{weights}: {error}") from error
    try:
        channels, height, width = (int(size) for size in metadata["image_shape"])
        step = int(metadata["step"])
    except (KeyError, ValueError, TypeError, OverflowError):
        raise UserError(f"{weights}: its metadata name no image shape or step; not weights that vaes wrote") from None
    if not all(1 <= size <= 65536 for size in (channels, height, width)):
        raise UserError(f"{weights}: its image shape {(channels, height, width)} is absurd")
    return experiment, (channels, height, width), step


_refuse_misfit = checkpoint.refuse_misfit


def load_weights(model: VAE, path: str | Path) -> VAE:
    """Put the weights at a path (a file, a checkpoint folder or a run folder) into a model of one's own; returns it.

    Raises:
        UserError: nothing is there, or it does not fit the model.
    """
    named, (tensors, _, _) = _open(Path(path), None)
    checkpoint.load_weights(model, tensors, str(named.path))
    return model
