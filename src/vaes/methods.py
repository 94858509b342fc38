"""Methods: the name of a paper -> the parts that make it. The only place where papers' names live.

A method is a row of :data:`METHODS`, which names kinds of parts. To add one, put a row there (from a program of your
own, before the configuration is built):

    METHODS["mine"] = Method("Mine", "I 2026", url, weights, "distortion + lambda_ * mmd", "reconstruction", ("mmd",),
                             {"model": {"posterior": "point"}, "objective": {"mmd": {"kernel": "imq"}}})
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vaes.schedules import Scheduled

__all__ = ["METHODS", "Method", "table"]

ROUNDING = 1e-9  # of schedules whose weight is to end at 0


class Method(NamedTuple):
    """One row: which parts, and how the options of ``objective.*`` become the weights of bound and terms.

    ``weights(pixels, *, options)`` is called at every step with the values that the schedules give, and must return
    a weight for each term (and for ``rate``, where it is not 1); ``pixels`` is C * H * W. Its keyword-only parameters
    are the keys of ``objective`` in a configuration, beside those of the bound's constructor. The constructor
    parameters of each term are keys too, under the term's name. For a value that makes no sense it raises a ValueError
    whose text begins with the option's name.
    """

    title: str
    source: str
    url: str
    weights: Callable[..., dict[str, float]]
    loss: str
    """The loss in a line, for the table of methods."""
    bound: str = "elbo"
    """A kind of bound; ``objective.bound`` overrides it."""
    terms: tuple[str, ...] = ()
    """Kinds of terms; ``objective.terms`` adds to them."""
    defaults: Mapping[str, Mapping[str, Any]] = {}
    """Sections of a configuration (``model``, ``objective``, ``train``) -> keys whose default is another here. What a
    configuration gives goes before them."""


def no_weights(pixels: int) -> dict[str, float]:
    """A bound without weights."""
    return {}


def elbo_weights(pixels: int, *, beta: Scheduled = 1.0) -> dict[str, float]:
    """``beta`` weighs the rate; 1 is the ELBO.

    Args:
        pixels: C * H * W.
        beta: the weight of the rate; 1 is the ELBO.
    """
    if beta < 0:
        raise ValueError(f"beta: {beta:g} is not right; it must be 0 or more")
    return {"rate": beta}


def info_weights(
    pixels: int, *, alpha: Scheduled = 0.0, lambda_: Scheduled = 2.0, mmd_scale: float | None = None
) -> dict[str, float]:
    """Rate: ``1 - alpha``. MMD: ``(alpha + lambda_ - 1) * mmd_scale``.

    ``mmd_scale`` is the nats per image that one unit of MMD counts for. By default it is pixels / 2, so that
    ``lambda_`` stands beside the *mean* squared error over pixels and carries over between image sizes, as in the
    released codes; 1 gives the paper's own units. A negative weight would reward what it is to penalise, without end.

    Args:
        pixels: C * H * W.
        alpha: the rate weighs 1 - alpha.
        lambda_: the MMD weighs (alpha + lambda_ - 1) * mmd_scale.
        mmd_scale: nats per image of one unit of MMD; null is pixels / 2, and 1 the paper's own units.
    """
    rate, mmd = 1 - alpha, alpha + lambda_ - 1
    if rate < -ROUNDING:
        raise ValueError(f"alpha: {alpha:g} gives the rate the weight {rate:g}; it must be 1 or less")
    if mmd < -ROUNDING:
        raise ValueError(
            f"lambda_: {lambda_:g} gives the MMD the weight alpha + lambda_ - 1 = {mmd:g}; with alpha {alpha:g} it "
            f"must be {rate:g} or more"
        )
    if mmd_scale is not None and mmd_scale < 0:
        raise ValueError(f"mmd_scale: {mmd_scale:g} is not right; it must be 0 or more")
    scale = pixels / 2 if mmd_scale is None else mmd_scale
    return {"rate": max(0.0, rate), "mmd": max(0.0, mmd) * scale}


INFO = ("Zhao, Song & Ermon 2017", "https://arxiv.org/abs/1706.02262", info_weights)
POINT = {"posterior": "point"}

METHODS: dict[str, Method] = {
    "ae": Method(
        "Autoencoder",
        "Rumelhart, Hinton & Williams 1986",
        "https://doi.org/10.1038/323533a0",
        no_weights,
        "distortion",
        bound="reconstruction",
        defaults={"model": POINT},
    ),
    "vae": Method(
        "VAE",
        "Kingma & Welling 2013",
        "https://arxiv.org/abs/1312.6114",
        elbo_weights,
        "distortion + beta * rate, beta = 1",
    ),
    "beta_vae": Method(
        "beta-VAE",
        "Higgins et al. 2017",
        "https://openreview.net/forum?id=Sy2fzU9gl",
        elbo_weights,
        "distortion + beta * rate, beta = 4",
        defaults={"objective": {"beta": 4.0}},
    ),
    "iwae": Method(
        "IWAE",
        "Burda, Grosse & Salakhutdinov 2016",
        "https://arxiv.org/abs/1509.00519",
        no_weights,
        "-log mean of p(x, z) / q(z given x) over K samples, K = 5",
        bound="iwae",
    ),
    "info_vae": Method(
        "InfoVAE",
        *INFO,
        "distortion + (1 - alpha) * rate + (alpha + lambda_ - 1) * mmd_scale * mmd, alpha = 0, lambda_ = 2",
        terms=("mmd",),
    ),
    "mmd_vae": Method(
        "MMD-VAE",
        *INFO,
        "InfoVAE's at alpha = 1, lambda_ = 1: distortion + mmd_scale * mmd",
        terms=("mmd",),
        defaults={"objective": {"alpha": 1.0, "lambda_": 1.0}},
    ),
}


def table() -> str:
    """The methods as a Markdown table: the one in docs/methods.md."""
    lines = ["| `method` | | posterior, prior | bound | terms | loss per image, in nats |", "|---|---|---|---|---|---|"]
    for name, row in METHODS.items():
        posterior, prior = (_kind(row, part) for part in ("posterior", "prior"))
        parts = f"{posterior or 'gaussian'}, {prior or 'standard_normal'} | {row.bound}"
        lines.append(f"| `{name}` | [{row.title}]({row.url}) | {parts} | {', '.join(row.terms)} | {row.loss} |")
    return "\n".join(lines)


def _kind(row: Method, part: str) -> str | None:
    said = row.defaults.get("model", {}).get(part)
    return said["kind"] if isinstance(said, Mapping) else said
