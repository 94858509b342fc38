"""The three networks that a run is given away as: encoder, decoder, sampler, each a module of tensors alone."""

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vaes.model import VAE
from vaes.posteriors import Latent
from vaes.randomness import drawn

__all__ = ["PARTS", "Network", "Part", "network"]

Part = Literal["encoder", "decoder", "sampler"]
PARTS: tuple[Part, ...] = ("encoder", "decoder", "sampler")


class Network(NamedTuple):
    """A part of a model, on the CPU, and what is known of it."""

    module: nn.Module  # one tensor, batch first -> a tuple of tensors
    given: str  # the name of its input
    gives: tuple[str, ...]  # the names of its outputs
    meanings: dict[str, str]  # of each of these names
    inputs: Callable[[int], Tensor]  # n inputs such as it will see, always the same ones


def network(model: VAE, part: Part, image_shape: tuple[int, int, int]) -> Network:
    """A part of a copy of the model, in evaluation mode.

    The encoder gives means and log-variances where the posterior is a diagonal Gaussian, elsewhere its central code.
    """
    kept = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    low, high = kept.value_range
    pixels = f"(batch, {', '.join(map(str, image_shape))}), pixels from {low:g} to {high:g}"
    codes = f"(batch, {', '.join(map(str, kept.z_shape))})"
    law = kept.prior.noise.law
    noise = {"uniform": "uniform on (0, 1)", "normal": "standard normal", "gumbel": "standard Gumbel"}[law]

    def noises(n: int) -> Tensor:
        return drawn(kept.prior.noise, (n,), torch.Generator().manual_seed(0))

    if part == "decoder":
        meanings = {"code": codes, "image": f"mean image {pixels}"}
        return Network(_Decoder(kept), "code", ("image",), meanings, lambda n: kept.sample_codes(noises(n)))
    if part == "sampler":
        shape = ", ".join(map(str, kept.prior.noise.shape))
        meanings = {"noise": f"(batch, {shape}), {noise}", "image": f"mean image {pixels}, of a code from the prior"}
        return Network(_Sampler(kept, noises(1)), "noise", ("image",), meanings, noises)
    meanings = {"image": pixels}
    if {"mean", "logvar"} <= kept.posterior.gives:
        gives: tuple[str, ...] = ("mean", "logvar")
        meanings |= {"mean": f"E[z|x] {codes}", "logvar": f"log Var[z|x] {codes}"}
    else:
        gives = ("code",)
        said = " ".join((type(kept.posterior).centre.__doc__ or "The central code.").split()).rstrip(".")
        meanings |= {"code": f"the most typical code of an image {codes}: {said[0].lower()}{said[1:]}"}

    def images(n: int) -> Tensor:
        """What the model draws, and noise on top of every second one."""
        x = kept.sample(noises(n))
        shifted = low + (high - low) * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
        return torch.where(torch.arange(n)[:, None, None, None] % 2 == 0, x, shifted)

    return Network(_Encoder(kept, len(gives) == 2), "image", gives, meanings, images)


class _Encoder(nn.Module):
    def __init__(self, model: VAE, gaussian: bool) -> None:
        super().__init__()
        self.model, self.gaussian = model, gaussian

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        latent = self.model.encode(image)
        if self.gaussian:
            assert latent.mean is not None
            assert latent.logvar is not None
            return latent.mean, latent.logvar
        return (latent.z[0],)


class _Decoder(nn.Module):
    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, code: Tensor) -> tuple[Tensor, ...]:
        return (self.model.decode(code),)


class _Sampler(nn.Module):
    """What a prior asks of the encoder does not depend on the noise: it is asked once, here, and kept."""

    def __init__(self, model: VAE, noise: Tensor) -> None:
        super().__init__()
        self.model = model
        self.asked: list[tuple[str, ...]] = []
        with torch.no_grad():
            model.prior.sample(noise, self._ask)

    def _ask(self, images: Tensor) -> Latent:
        latent = self.model.encode(images)
        known = {"z": latent.z, "mean": latent.mean, "logvar": latent.logvar, **latent.aux}
        for name, value in known.items():
            self.register_buffer(f"answer{len(self.asked)}_{name}", None if value is None else value.clone())
        self.asked.append(tuple(latent.aux))
        return latent

    def forward(self, noise: Tensor) -> tuple[Tensor, ...]:
        answers = iter([self._answer(i) for i in range(len(self.asked))])
        return (self.model.decode(self.model.prior.sample(noise, lambda _: next(answers))),)

    def _answer(self, i: int) -> Latent:
        z, mean, logvar = (getattr(self, f"answer{i}_{name}") for name in ("z", "mean", "logvar"))
        return Latent(z, None, mean, logvar, {name: getattr(self, f"answer{i}_{name}") for name in self.asked[i]})
