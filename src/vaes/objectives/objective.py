"""The objective: model, bound and terms, one call."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from vaes.model import VAE, Trace
from vaes.objectives.bounds import Bound
from vaes.objectives.terms import Term

__all__ = ["Noise", "Objective"]


class Noise(NamedTuple):
    """All the randomness of one step, standard normal."""

    posterior: Tensor  # (K, B, D) for q(z|x)
    prior: Tensor  # (B, D) for p(z)


class Objective(nn.Module):
    """``bound + sum of weight * term``, in nats per image, averaged over the batch.

    Args:
        model: what is trained.
        bound: the loss of each image.
        terms: name -> term; the name is the weight's and the log's.

    Raises:
        ValueError: the bound or a term needs what the model's posterior cannot give.
    """

    def __init__(self, model: VAE, bound: Bound, terms: Mapping[str, Term] | None = None) -> None:
        super().__init__()
        self.model, self.bound, self.terms = model, bound, nn.ModuleDict(dict(terms or {}))
        parts: list[Bound | Term] = [bound, *(terms or {}).values()]
        for part in parts:
            missing = sorted(part.needs - model.gives)
            if missing:
                raise ValueError(
                    f"{type(part).__name__} needs {', '.join(missing)}, "
                    f"which the posterior {type(model.posterior).__name__} does not give"
                )

    @property
    def weights(self) -> frozenset[str]:
        """Names of the weights that :meth:`forward` takes."""
        return self.bound.weights | frozenset(self.terms)

    def forward(self, x: Tensor, noise: Noise, weights: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
        """Images (B, C, H, W) -> ``loss``, ``distortion``, and ``elbo``, ``rate`` where there is one, and every term,
        unweighted.

        All scalars, means over the batch, in nats; only ``loss`` carries weights, and ``elbo`` is the bound at beta =
        1 whatever is trained.
        """
        return self.score(self.model(x, noise.posterior), noise.prior, weights)

    def score(self, trace: Trace, prior_noise: Tensor, weights: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
        """What :meth:`forward` returns, from a pass that was made already and noise for the prior (B, D)."""
        loss = self.bound(trace, weights).mean()
        out = {"distortion": -trace.log_px.mean()}
        if trace.rate is not None:
            out["rate"] = trace.rate.mean()
            out["elbo"] = -out["distortion"] - out["rate"]
        if self.terms:
            prior_z = self.model.prior.sample(prior_noise)
            for name, term in self.terms.items():
                out[name] = term(trace, prior_z)
                loss = loss + weights[name] * out[name]
        return {"loss": loss, **{name: value.detach() for name, value in out.items()}}
