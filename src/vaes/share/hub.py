"""Runs on the Hugging Face Hub: given away with a card, and loaded by name. Nothing of what is loaded is executed."""

import contextlib
import importlib.util
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml

from vaes import __version__, files, run
from vaes import config as configuration
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.methods import METHODS
from vaes.model import evaluation
from vaes.run import Run
from vaes.terminal import escape
from vaes.train.record import test_numbers

__all__ = ["card", "load", "push"]

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
WEIGHTS, METRICS, SAMPLES = "model.safetensors", "metrics.json", "samples.png"
LIBRARIES = frozenset({"httpx", "httpx2", "huggingface_hub", "requests", "urllib3"})


def push(made: Run, repo: str, *, license: str = "unknown", private: bool = False, revision: str | None = None) -> str:
    """Give a run away as the repository USER/NAME, which is made if it is not there -> its address.

    It gets the weights as safetensors with their experiment, a card with samples, and the test numbers of these
    weights. No image that it was trained or tested on goes along, and of a path on this machine the last part alone.

    Args:
        made: the run; its optimiser's state stays here.
        repo: USER/NAME.
        license: an identifier of the Hub's (``mit``, ``cc-by-4.0``), for the weights.
        private: for its owner alone, where the repository is made now.
        revision: a branch, made if it is not there; by default ``main``.

    Raises:
        UserError: the network, the token or the name is not right; the repository then has nothing of this run.
    """
    _refuse_name(repo)
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise UserError(f"--license {license}: must be an identifier such as mit, apache-2.0 or cc-by-4.0")
    _refuse_without_hub()
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder, _speaking(repo, revision):
        _write(made, Path(folder), repo, license, revision)
        api = HfApi(library_name="vaes", library_version=__version__)
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        message = f"{made.experiment.method} on {made.experiment.data['kind']}, step {made.step}"
        api.upload_folder(repo_id=repo, folder_path=folder, revision=revision, commit_message=message)
        return f"{api.endpoint}/{repo}" + (f"/tree/{revision}" if revision else "")


def load(
    path: str | Path,
    *,
    checkpoint: str | int | None = None,
    device: str = "cpu",
    expected: Experiment | None = None,
    revision: str | None = None,
) -> Run:
    """Load a run from its folder, a checkpoint folder or a weights file, by path or URL (``s3://bucket/runs/x``), from
    the Hugging Face Hub by USER/NAME, or by zoo:NAME one of the small models that come along. Nothing is executed.

    A text USER/NAME is looked for on the Hub where there is neither such a path nor a folder USER here; what was
    fetched before is taken from its cache without a network. A :class:`pathlib.Path` is always a path.

    Args:
        path: any of them.
        checkpoint: of a run folder: ``best`` by validation loss, ``last``, or a step; by default the best where there
            was a validation.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        expected: the experiment that the weights are thought to belong to; its data section then takes the place of
            theirs.
        revision: of the Hub's repository: a branch, a tag or a commit.

    Raises:
        UserError: nothing is there, it is damaged, it carries no configuration, or another one than expected; the
            network, the token or the name is not right.
    """
    if not (isinstance(path, str) and NAME.fullmatch(path)) or Path(path).exists() or Path(path).parent.is_dir():
        if revision is not None:
            raise UserError(f"revision: {revision}: {path} is a path here, and only the Hub has revisions")
        return run.load(path, checkpoint=checkpoint, device=device, expected=expected)
    if checkpoint is not None:
        raise UserError(f"checkpoint: {checkpoint}: {path} on the Hub is one checkpoint; its versions are revisions")
    weights = _fetch(path, revision)
    try:
        found = run.load(weights, device=device, expected=expected)
    except UserError as error:
        raise UserError(f"{path} on the Hub: {error}") from error
    found.folder = weights.parent  # the cache's own files have no names
    return found


def _fetch(repo: str, revision: str | None) -> Path:
    """The weights of a repository, beside its test numbers where it has them."""
    _refuse_without_hub(f"{repo}: there is no such path here, and looking for it on the Hugging Face Hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    about: dict[str, Any] = {"revision": revision, "library_name": "vaes", "library_version": __version__}
    with _speaking(repo, revision, "there is no such path here, and "):
        weights = Path(hf_hub_download(repo, WEIGHTS, **about))
        with contextlib.suppress(EntryNotFoundError):
            hf_hub_download(repo, METRICS, **{**about, "revision": weights.parent.name})
        return weights


def _write(made: Run, folder: Path, repo: str, license: str, revision: str | None) -> None:
    """What is sent: the weights, the experiment, the numbers of these weights, samples, the card."""
    from vaes.view.decoding import decode, prior_codes
    from vaes.view.layout import sheet

    tensors, metadata, sha256 = files.hold_tensors(made.weights)
    if sha256 != made.sha256:
        raise UserError(f"{made.weights}: is another file than when the run was loaded; load it again")
    raw = _without_paths(made.experiment.to_dict())
    files.write_tensors(folder / WEIGHTS, tensors, {**metadata, "config": configuration.to_yaml(raw)})
    (folder / "config.yaml").write_text(configuration.to_yaml(raw), encoding="utf-8")
    if test_numbers(made.folder, made.step):
        document = files.read_bytes(made.folder / METRICS, files.MAX_JSON)
        (folder / METRICS).write_bytes(document)
    with evaluation(made.model):
        samples = decode(made.model, prior_codes(made.model, 32, 0), 32)
    scale = max(1, 72 // max(made.image_shape[1:]))
    sheet(samples, 8, title="Samples from the prior", caption="mean images; seed 0", scale=scale).save(folder / SAMPLES)
    (folder / "README.md").write_text(card(made, repo, license=license, revision=revision), encoding="utf-8")


def _without_paths(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose data say where they lie by the last part of the path, without the place of a copy."""
    data = dict(raw["data"])
    if isinstance(data.get("root"), str):
        data["root"] = PurePath(data["root"]).name or "data"
    return {**raw, "data": data, "train": {**raw["train"], "mirror": None}}


def card(made: Run, repo: str, *, license: str = "unknown", revision: str | None = None) -> str:
    """The README.md of a run's repository: what it is, its numbers with their errors, its data, how it is loaded."""
    e, model = made.experiment, made.model
    row, image = METHODS.get(e.method), " x ".join(map(str, made.image_shape))
    low, high = model.value_range
    numbers = test_numbers(made.folder, made.step)
    head = {
        "library_name": "vaes",
        "license": license,
        "tags": ["vae", "variational-autoencoder", "vaes", e.method],
        "pipeline_tag": "unconditional-image-generation",
    }
    of = f"[{row.title}]({row.url}) ({row.source})" if row is not None else _text(e.method)
    parts = ", ".join(f"{name} `{e.model[name]['kind']}`" for name in ("network", "posterior", "prior", "likelihood"))
    segments = [segment for segment in made.history.segments if segment.get("reading")]
    data = _text(segments[-1]["reading"]) if segments else "how they were read is not in this run"
    at = "" if revision is None else f", revision={revision!r}"
    shape = ", ".join(map(str, made.image_shape))
    unsaid = "Whoever published this has not said under which licence it is."
    table = ["| on the test images | mean ± half a 95 % interval | unit |", "|---|---|---|"]
    table += [f"| {_text(name)} | {_text(value)} | {_text(unit)} |" for name, value, unit in numbers]
    return "\n".join(
        [
            "---", yaml.safe_dump(head, sort_keys=False).rstrip(), "---", "",
            f"# {repo.partition('/')[2]}", "",
            f"A variational autoencoder, {of}, of images {image} (channels, height, width) of `{e.data['kind']}`: "
            f"{parts}, {model.z_dim} latent dimensions, {sum(p.numel() for p in model.parameters()):,} parameters. "
            f"These are the weights of step {made.step:,} of {e.train['n_steps']:,}.", "",
            f"![samples from the prior]({SAMPLES})", "", "## Load it", "",
            "```python", "# pip install 'vaes[hub]'", "import vaes", "",
            f'run = vaes.load("{repo}"{at})',
            f"images = run.sample(64)  # (64, {shape}), pixels from {low:g} to {high:g}",
            "codes = run.encode(your_images)", "```", "",
            "Weights are safetensors and the configuration is text: nothing is executed when they are loaded.", "",
            "## Numbers", "",
            *(table if numbers else ["There are no test numbers of these weights."]), "",
            "## Data", "", f"`{e.data['kind']}`: {data}. No image of them is in this repository.", "",
            "## How it was trained", "",
            f"vaes {__version__}; SHA-256 of the weights file that the training wrote: `{made.sha256}`.", "",
            "```yaml", configuration.to_yaml(_without_paths(e.to_dict())).rstrip(), "```", "",
            "## Licence", "",
            f"`{license}`" if license != "unknown" else unsaid,
            "",
        ]
    )  # fmt: skip


def _text(text: object) -> str:
    """A foreign text that is no Markdown and no HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&])", r"\\\1", escape(text))


def _refuse_name(repo: str) -> None:
    if not NAME.fullmatch(repo):
        raise UserError(f"{escape(repo)}: is no name of a repository on the Hugging Face Hub; it is USER/NAME")


def _refuse_without_hub(what: str = "the Hugging Face Hub") -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{what} needs a package more: pip install 'vaes[hub]'")


@contextlib.contextmanager
def _speaking(repo: str, revision: str | None, here: str = "") -> Iterator[None]:
    """Inside, what the Hub answers, or that it does not answer, is one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not any(kind.__module__.partition(".")[0] in LIBRARIES for kind in type(error).__mro__):
            raise
        raise UserError(_said(error, repo, revision, here)) from error


def _said(error: Exception, repo: str, revision: str | None, here: str) -> str:
    from huggingface_hub import constants, errors

    endpoint = constants.ENDPOINT
    status = getattr(getattr(error, "response", None), "status_code", None)
    token = "give a token by HF_TOKEN, or hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo}: has no revision {revision} at {endpoint}"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo}: its owner lets in only those who asked, at {endpoint}/{repo}; then {token}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{repo}: {here}no such repository is at {endpoint}; if it is private, {token}"
    if status in (401, 403):
        return f"{repo}: {endpoint} does not accept this token for it; {token}, of one who may do this"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled) or status is None:
        why = " (HF_HUB_OFFLINE is set)" if constants.is_offline_mode() else ""
        if isinstance(error, errors.HFValidationError):
            return f"{repo}: is no name of a repository on the Hugging Face Hub; it is USER/NAME"
        return f"{repo}: {here}{endpoint} cannot be reached{why}" + ("; nor was it fetched before" if here else "")
    if isinstance(error, errors.EntryNotFoundError):
        return f"{repo}: has no {WEIGHTS} at {endpoint}; it is no run of vaes, and nothing else is read"
    return f"{repo}: {endpoint} answered {status} ({' '.join(str(error).split())[:200]})"
