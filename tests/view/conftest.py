"""Small models and images that the tests of pictures share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vaes.data.images import Annotations, TensorSet
from vaes.likelihoods import Bernoulli, Gaussian, Likelihood
from vaes.model import VAE
from vaes.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from vaes.posteriors import Gaussian as GaussianPosterior
from vaes.posteriors import Point, Posterior
from vaes.priors import StandardNormal

Shape = tuple[int, int, int]


@pytest.fixture
def build() -> Callable[..., VAE]:
    """A small untrained model whose pictures vary; the same at every call."""

    def build(
        shape: Shape = (1, 8, 8), z_dim: int = 3, *, posterior: Posterior | None = None, conv: bool = False
    ) -> VAE:
        torch.manual_seed(0)
        posterior = posterior or GaussianPosterior()
        encoder: nn.Module
        decoder: nn.Module
        likelihood: Likelihood = Gaussian() if conv else Bernoulli()
        if conv:
            encoder = ConvEncoder(shape, posterior.heads((z_dim,)), dim=4, dim_mults=(1, 2))
            decoder = ConvDecoder(z_dim, shape, dim=4, dim_mults=(1, 2))
        else:
            encoder = MLPEncoder(shape, posterior.heads((z_dim,)), hidden=(16,))
            decoder = MLPDecoder(z_dim, shape, hidden=(16,))
        for layer in decoder.modules():
            if isinstance(layer, nn.Linear | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0.0, 0.8)
        return VAE(encoder, decoder, posterior, StandardNormal(z_dim), likelihood)

    return build


@pytest.fixture
def images() -> Callable[..., TensorSet]:
    """Noise images, with labels 0, 1, 2 in turn unless told otherwise."""

    def images(count: int = 30, shape: Shape = (1, 8, 8), *, labelled: bool = True) -> TensorSet:
        pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        notes = Annotations(torch.arange(count) % 3, ("a", "b", "c")) if labelled else Annotations()
        return TensorSet(pixels, notes)

    return images


class Identity(nn.Module):
    """An encoder whose mean is the first D pixels and whose log-variances are given; a decoder that shows its code."""

    def __init__(self, logvar: Tensor) -> None:
        super().__init__()
        self.logvar = nn.Parameter(logvar)

    def forward(self, x: Tensor) -> Tensor:
        means = x.flatten(1)[:, : len(self.logvar)]
        return torch.cat([means, self.logvar.expand_as(means)], dim=1)


class Show(nn.Module):
    """Codes (B, D) -> images (B, 1, 1, D), unchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        return (z * self.one)[:, None, None, :]


@pytest.fixture
def transparent() -> Callable[[Tensor], VAE]:
    """A model whose code is its image, 1 x 1 x D with pixels in [-4, 4]: every picture can be read back."""

    def transparent(logvar: Tensor) -> VAE:
        likelihood = Gaussian(link="identity")
        prior = StandardNormal(len(logvar))
        return VAE(Identity(logvar), Show(), GaussianPosterior(), prior, likelihood, value_range=(-4.0, 4.0))

    return transparent


@pytest.fixture
def point() -> Posterior:
    """A posterior without variances."""
    return Point()
