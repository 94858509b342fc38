"""The objective: model, bound and terms, one call."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaes.model import VAE, Trace
from vaes.objectives.bounds import Bound
from vaes.objectives.context import Context, Drawn, Noise
from vaes.objectives.terms import Term

__all__ = ["Contributions", "Objective"]


class Contributions(NamedTuple):
    """What a loss is made of: scalars, means over the batch."""

    parts: dict[str, Tensor]  # of the bound and each term, with their weights and gradients; their sum is the loss
    critics: dict[str, Tensor]  # term -> its critic's own loss, with its gradient
    doubts: dict[str, Tensor]  # term -> its critic's judgement as a share of one's that cannot tell


class Objective(nn.Module):
    """``bound + sum of weight * term``, in nats per image, averaged over the batch.

    Args:
        model: what is trained.
        bound: the loss of each image.
        terms: name -> term; the name is the weight's and the log's.

    Raises:
        ValueError: the bound or a term needs what the model's posterior and prior cannot give.
    """

    def __init__(self, model: VAE, bound: Bound, terms: Mapping[str, Term] | None = None) -> None:
        super().__init__()
        self.model, self.bound, self.terms = model, bound, nn.ModuleDict(dict(terms or {}))
        parts: list[Bound | Term] = [bound, *(terms or {}).values()]
        gives = model.gives
        for part in parts:
            missing = sorted(part.needs - gives)
            if missing:
                raise ValueError(_misfit(part, missing, model))
        learned = any(p.requires_grad for p in model.prior.parameters())
        if learned and not any(part.trains_prior for part in parts):
            raise ValueError(
                f"the prior {type(model.prior).__name__} is learned, and nothing here teaches it, for "
                f"{type(bound).__name__} has no log p(z): use the prior standard_normal, and vaes fit-prior after the "
                "training, or a bound that has (elbo)"
            )
        self.wants = frozenset[str]().union(*(part.needs for part in parts))
        """Fields of the trace that bound and terms read."""
        if unread := sorted(model.posterior.losses - self.wants):
            raise ValueError(
                f"the posterior {type(model.posterior).__name__} learns by {' and '.join(unread)}, which nothing here "
                f"reads: add {' and '.join(f'objective.terms.{name}' for name in unread)}, or take method vq_vae"
            )

    @property
    def weights(self) -> frozenset[str]:
        """Names of the weights that :meth:`forward` takes."""
        return self.bound.weights | frozenset(self.terms)

    @property
    def named_terms(self) -> dict[str, Term]:
        """``terms``, typed."""
        return dict(self.terms.items())  # type: ignore[arg-type]

    @property
    def losses(self) -> tuple[str, ...]:
        """Names in the output whose sum is descended: the model's loss, and those of critics, which share no
        gradient."""
        return ("loss", *(f"{name}_loss" for name, term in self.named_terms.items() if term.has_critic))

    @property
    def least_images(self) -> int:
        """How many images a batch must have, for its terms to compare them."""
        return max([1, *(term.least for term in self.named_terms.values() if term.compares)])

    @property
    def unranked(self) -> tuple[str, ...]:
        """Terms because of which a lower loss is not a better model."""
        return tuple(name for name, term in self.named_terms.items() if not term.ranks)

    @property
    def needs_gradient(self) -> bool:
        """Whether a term takes a gradient itself."""
        return any(term.needs_gradient for term in self.named_terms.values())

    def forward(self, x: Tensor, noise: Noise, context: Context) -> dict[str, Tensor]:
        """Images (B, C, H, W) -> ``loss``, ``distortion``, and ``elbo``, ``rate`` where there is one, and every term,
        unweighted, and every critic's loss.

        All scalars, means over the batch, in nats; only ``loss`` carries weights, and ``elbo`` is the bound at beta =
        1 whatever is trained. ``losses`` alone have a gradient, and of them those of the players whose turn it is.
        """
        return self.score(self.model(x, noise.posterior, self.wants, context.options.get("posterior")), noise, context)

    def score(self, trace: Trace, noise: Noise, context: Context) -> dict[str, Tensor]:
        """What :meth:`forward` returns, from a pass that was made already."""
        loss = self.bound(trace, context.of("bound")).mean()
        learning = torch.is_grad_enabled() and context.critics_play
        out, critics = {"distortion": -trace.log_px.mean()}, {}
        if trace.rate is not None:
            out["rate"] = trace.rate.mean()
            out["elbo"] = -out["distortion"] - out["rate"]
        out |= {name: trace.aux[name].mean() for name in self.model.posterior.tells}
        for name, term, given in self._given(trace, noise, context):
            out[name] = term(*given)
            loss = loss + context.weights[name] * out[name]
            if term.has_critic:
                with torch.set_grad_enabled(learning):
                    critics[f"{name}_loss"] = term.critic_loss(*given)
        loss = loss if context.model_plays else loss.detach()
        return {"loss": loss, **{name: value.detach() for name, value in out.items()}, **critics}

    def contributions(self, x: Tensor, noise: Noise, context: Context) -> Contributions:
        """What ``loss`` is made of, as a forward pass of its own finds it."""
        trace = self.model(x, noise.posterior, self.wants, context.options.get("posterior"))
        parts = {name: part.mean() for name, part in self.bound.parts(trace, context.of("bound")).items()}
        critics, doubts = {}, {}
        for name, term, given in self._given(trace, noise, context):
            parts[name] = context.weights[name] * term(*given)
            if term.has_critic:
                critics[name] = term.critic_loss(*given)
                with torch.no_grad():
                    doubts[name] = term.judgement(*given) / term.chance
        return Contributions(parts, critics, doubts)

    def _given(
        self, trace: Trace, noise: Noise, context: Context
    ) -> Iterator[tuple[str, Term, tuple[Trace, Drawn, Context]]]:
        """Each term, and what it is called with."""
        if not self.terms:
            return
        prior_z, images = self.model.sample_codes(noise.prior), None
        if any(term.draws_images for term in self.named_terms.values()):
            images = self.model.decode(torch.stack([trace.z[0], prior_z]).detach())
        for name, term in self.named_terms.items():
            drawn = Drawn(prior_z, noise.terms.get(name), images, self.model if term.reads_model else None)
            yield name, term, (trace, drawn, context.of(name))


def _misfit(part: Bound | Term, missing: list[str], model: VAE) -> str:
    posterior, prior = type(model.posterior).__name__, type(model.prior).__name__
    if missing == ["kl"]:
        return (
            f"{type(part).__name__} needs a rate per dimension in closed form, which {posterior} and {prior} have "
            "not: use a Gaussian posterior and a standard normal prior"
        )
    if missing == ["log_q_stopped"]:
        return (
            f"{type(part).__name__} needs the density of given codes, which the posterior {posterior} does not give: "
            "use objective.gradient plain, or the posterior gaussian or full_covariance"
        )
    if not {"log_q", "logvar", "mean", "rate"} & {*missing}:
        return (
            f"{type(part).__name__} needs {', '.join(missing)}, which {posterior} does not give: it is made for "
            "another posterior (model.posterior)"
        )
    return (
        f"{type(part).__name__} needs {', '.join(missing)}, which the posterior {posterior} does not give: use the "
        "posterior gaussian, or a bound and terms that need no density (reconstruction, mmd)"
    )
