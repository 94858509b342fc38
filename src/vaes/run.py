"""What was trained: a model, where it came from, and what can be done with it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaes import __version__, code_statistics, fitting, zoo
from vaes import config as configuration
from vaes.code_statistics import Statistics
from vaes.config import DATA_OF_PYTHON
from vaes.data import ImageSet, Reading, Splits, TensorSet, array_images, pictures, to_float, to_uint8
from vaes.data.array_values import layout
from vaes.data.identity import identify
from vaes.encoding import Codes, encode
from vaes.errors import UserError
from vaes.experiment import Experiment, refuse_difference
from vaes.fitting import Fitted
from vaes.model import VAE, evaluation, refuse_device
from vaes.nn.weightless import weightless
from vaes.randomness import drawn
from vaes.sizes import Sized
from vaes.start import data_notes, remember
from vaes.train.checkpoint import refuse_misfit
from vaes.train.fetch import local
from vaes.train.folder import history
from vaes.train.record import read_lines, test_numbers
from vaes.train.runtime import choose_device
from vaes.weights import experiment_of, open_weights

if TYPE_CHECKING:
    from vaes.evaluate.report import Evaluation

__all__ = ["History", "Run", "load"]


class History(NamedTuple):
    """How a run came to be."""

    segments: list[dict[str, Any]]
    """One for each time it was begun or gone on with: step, settings, data, versions, machine, notes."""
    train: list[dict[str, Any]]
    """The lines of means since the line before: step, terms in nats per image, coefficients, learning rate."""
    valid: list[dict[str, Any]]
    """The lines of passes over the validation images."""


class Run(Sized):
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
        super().__init__(model, image_shape)
        self.experiment, self.step, self.which = experiment, step, which
        self.asked, self.weights, self.sha256 = asked, weights, sha256
        in_run = weights.parent.parent.name == "ckpt"
        self.folder = weights.parent.parent.parent if in_run else weights.parent
        if zoo.holds(weights):
            self.folder = zoo.home(weights)
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
        self._take_size(splits.train.shape[1:])
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
        size = changed.data.get("image_size")
        if size is not None and size != e.data.get("image_size"):
            self._take_size((size, size) if isinstance(size, int) else size)
        self.experiment, self._splits = changed, None
        return self

    def sample(self, n: int = 64, *, seed: int = 0, prior: "str | Fitted | None" = None) -> Tensor:
        """Mean images of n codes from a prior: see :meth:`fitted_prior`."""
        found = self.fitted_prior(prior)
        law = self.model.prior if found is None else found.prior.to(self.device)
        noise = drawn(law.noise, (n,), torch.Generator().manual_seed(seed))
        return self._batched(lambda eps: self.model.decode(law.sample(eps, self.model.encode)), noise)

    def fitted_prior(self, name: "str | Fitted | None" = None) -> Fitted | None:
        """What ``name`` stands for: the prior that was fitted to these weights last, or None (the model's own) where
        there is none; ``own`` is always None, ``fitted`` and the kinds (:data:`vaes.fitting.KINDS`) never.

        Raises:
            UserError: what was asked for is not there, belongs to other weights, or is damaged.
        """
        if isinstance(name, Fitted):
            return name
        return fitting.choose(self.folder, self.sha256, self.model.z_shape, name)

    def fit_prior(
        self,
        kind: str | None = None,
        *,
        seed: int = 0,
        n_images: int = 100_000,
        write: bool = True,
        progress: bool = False,
        **options: int | str | None,
    ) -> Fitted:
        """Fit a prior to draws of q(z|x) of the training images. Likelihoods and bounds keep the model's own prior.

        Args:
            kind: ``gmm``, ``flow`` or ``two_stage``, see :func:`vaes.fitting.fit`, ``flow_matching``, see
                :func:`vaes.fitting.fit_matching`, or ``autoregressive``, see :func:`vaes.fitting.fit_indices`; by
                default the method's, or gmm.
            seed: of the choice of images, draws, first weights and batches.
            n_images: at most.
            write: store it beside the weights, where :meth:`sample` and :meth:`evaluate` find it.
            progress: show bars on a terminal.
            options: of the kind, see :data:`vaes.fitting.KINDS`: components, steps, flow, width, solver_steps.

        Raises:
            UserError: codes that cannot be fitted so, too few of them, or a folder that cannot be written.
        """
        chosen = kind or self.experiment.prior_to_fit or "gmm"
        folder = self.folder if write else None
        fitting.check(self.model, chosen, options, folder)
        normalised = chosen == "flow_matching" and (write or (self.folder / code_statistics.FILE).exists())
        return fitting.fit_to(
            self.model, self.data.train, chosen, options, folder=folder, seed=seed, most=n_images,
            weights=self.sha256, step=self.step, progress=progress,
            statistics=self.code_statistics(progress=progress) if normalised else None,
        )  # fmt: skip

    def decode(self, z: Tensor, *, tile: int | None = None) -> Tensor:
        """Mean images of codes (N, Z...), or flattened, (N, D). Grids of other sides are images of other sides, which
        may be decoded in squares of ``tile`` pixels, as by :meth:`tiled`.

        Raises:
            UserError: codes of another shape.
        """
        run = self.for_code(z)
        there = (run if tile is None else run.tiled(tile)).model
        return self._batched(there.decode, there.shaped(z))

    def reconstruct(self, images: Any = "test", *, n: int = 64) -> tuple[Tensor, Tensor]:
        """The first n images, and the mean images of their central codes. See :meth:`encode` for ``images``."""
        found = self.images(images)
        x = self._floats(found, torch.arange(min(n, len(found))))
        return x, self._batched(self.at(found.shape[1:]).model.reconstruct, x)

    def traverse(self, dim: int, *, n: int = 9, reach: float = 3.0, start: Tensor | None = None) -> Tensor:
        """Mean images along one dimension from -reach to reach, the others as in ``start`` (D,), by default 0. Codes
        are brought to the nearest of the prior's, where those are not all of R^D."""
        if not 0 <= dim < self.model.z_dim:
            raise UserError(f"dim: {dim} of {self.model.z_dim} latent dimensions; they are counted from 0")
        z = (torch.zeros(self.model.z_dim) if start is None else start.cpu().flatten()).repeat(n, 1)
        z[:, dim] = torch.linspace(-reach, reach, n)
        return self.decode(self.model.prior.project(self.model.shaped(z)))

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
        found = self.images(images)
        model = self.at(found.shape[1:]).model
        return encode(model, found, seed=seed, batch_size=batch_size, progress=progress)

    def code_statistics(self, *, batch_size: int = 256, progress: bool = False) -> Statistics:
        """Mean and spread of the codes of the training images, channel by channel: those in the run folder, or computed
        and left there.

        Raises:
            UserError: those there belong to other weights, or the training images are gone.
        """
        if (path := self.folder / code_statistics.FILE).exists():
            return code_statistics.read(path, self.sha256)
        if self.words_of_size:
            raise UserError(f"{self.words_of_size}; statistics are of the size in training: compute them there first")
        found = code_statistics.measure(
            self.model, self.data.train, weights=self.sha256, step=self.step, batch_size=batch_size, progress=progress
        )
        found.write(self.folder)
        return found

    def images(self, source: Any) -> ImageSet:
        """A set of what :meth:`encode` takes.

        Raises:
            UserError: of a shape that the model does not take, or nothing that is known.
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
        if found.shape[0] != self.image_shape[0]:
            raise UserError(f"images of {found.shape} where the model takes {self.image_shape}, both (C, H, W)")
        self.at(found.shape[1:])
        return found

    def read_images(self, paths: Iterable[str | Path], *, skip_bad: bool = False) -> tuple[ImageSet, Reading]:
        """Image files, folders and archives, or one .npy or .npz, read as the run's own data were (``data.fit``, the
        depth or the range of their values), and how that went. Pictures that are all of one size keep it where codes
        are grids and the run's own data were not brought to a size (``data.image_size``)."""
        names = [Path(path) for path in paths]
        if len(names) == 1 and names[0].suffix.lower() in (".npy", ".npz"):
            data, given = self.experiment.data, ("image_size", "value_range")
            return array_images(names[0], **({k: data[k] for k in given} if data["kind"] == "arrays" else {}))
        options = {key: value for key in ("fit", "white") if (value := self.experiment.data.get(key)) is not None}
        segments = self.history.segments
        if "white" not in options and segments and isinstance(white := segments[-1].get("white"), int):
            options["white"] = white
        own = len(self.model.z_shape) == 3 and self.experiment.data.get("image_size") is None
        found, reading = pictures(names, self.image_shape, **options, skip_bad=skip_bad, own_size=own)
        self.at(found.shape[1:])
        return found, reading

    def evaluate(
        self,
        only: Sequence[str] | None = None,
        *,
        split: str = "test",
        seed: int = 0,
        features: str = "auto",
        perceptual: str = "auto",
        prior: str | None = None,
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
            perceptual: for reconstructions, see :func:`vaes.evaluate.likeness.find_distance`.
            prior: which fitted priors the quality of samples is measured under too, beside the model's own: a kind,
                ``fitted`` (the last), ``own`` (none), or by default all that belong to these weights.
            outliers: images of another source.
            output: the folder of ``evaluation.json``, by default the run folder, and for images of another size than in
                training one below it.
            write: add them to it.
            progress: show bars on a terminal.
            budget: fields of :class:`vaes.evaluate.Budget`.
        """
        from vaes.evaluate import report, runner

        options = runner.Budget(**(budget or {}))
        groups = runner.DEFAULT_GROUPS if only is None else tuple(only)
        runner.check(groups, split, options, seed)
        splits = self.data
        home = self.home if output is None else output
        if write:
            report.ready(home)
        of = (self.folder, self.sha256, self.model.z_shape)
        fitted = fitting.chosen(*of, prior) if "generation" in groups else ()
        found = runner.evaluate_groups(
            self.model, splits, only=groups, split=split, budget=options, seed=seed, features=features,
            cache=home if write else None, outliers=outliers, progress=progress,
            fitted=fitted, perceptual=perceptual,
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
    """Load a run from its folder, a checkpoint folder or a weights file, by path or URL, or ``zoo:NAME``. Nothing in it
    is executed.

    Args:
        path: any of them.
        checkpoint: of a run folder: ``best`` by validation loss, ``last``, or a step; by default the best where there
            was a validation.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        expected: the experiment that the weights are thought to belong to; its data section then takes the place of
            theirs.

    Raises:
        UserError: nothing is there, it is damaged, it carries no configuration, or another one than expected.
    """
    target, checkpoint_name = choose_device(device), None if checkpoint is None else str(checkpoint)
    named, (tensors, metadata, sha256) = open_weights(local(path), checkpoint_name)
    weights = named.path
    experiment, shape, step = experiment_of(weights, metadata)
    if expected is not None:
        refuse_difference(
            expected, experiment, ("method", "model"), f"{weights}: these weights belong to another configuration"
        )
        experiment = experiment.replace({"data": expected.to_dict()["data"]})
    if experiment.model["network"]["kind"] not in configuration.OWN:
        with weightless():  # nothing is allocated before the weights are known to fit, whatever metadata say
            refuse_misfit(experiment.build_model(shape), tensors, str(weights))
    model = experiment.build_model(shape)
    refuse_device(model, target)
    refuse_misfit(model, tensors, str(weights))
    model.load_state_dict(tensors)
    return Run(
        experiment, model.to(target).eval(), step=step, which=named.words or f"step {step:,}",
        asked=named.name or str(step), weights=weights, sha256=sha256, image_shape=shape,
    )  # fmt: skip
