"""Small models that several tests build."""

import torch
from torch import Tensor, nn

from vaes import likelihoods, posteriors
from vaes.model import VAE
from vaes.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from vaes.objectives import Noise
from vaes.priors import Prior, StandardNormal


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noise(k: int, b: int, d: int, seed: int = 1) -> Noise:
    return Noise(randn(k, b, d, seed=seed), randn(b, d, seed=seed + 1000))


def small_vae(
    shape: tuple[int, int, int] = (1, 8, 8),
    z_dim: int = 3,
    posterior: posteriors.Posterior | None = None,
    likelihood: likelihoods.Likelihood | None = None,
    network: str = "mlp",
    seed: int = 0,
    prior: Prior | None = None,
) -> VAE:
    torch.manual_seed(seed)
    posterior = posterior or posteriors.Gaussian()
    likelihood = likelihood or likelihoods.Gaussian()
    encoder: nn.Module
    if network == "mlp":
        encoder = MLPEncoder(shape, posterior.heads((z_dim,)), hidden=(16,))
        decoder: nn.Module = MLPDecoder(z_dim, shape, hidden=(16,))
    else:
        encoder = ConvEncoder(shape, posterior.heads((z_dim,)), dim=4, dim_mults=(1, 2))
        decoder = ConvDecoder(z_dim, shape, dim=4, dim_mults=(1, 2))
    return VAE(encoder, decoder, posterior, prior or StandardNormal(z_dim), likelihood)


class Affine(nn.Module):
    """x -> weight x + bias on flattened inputs, to any output shape."""

    def __init__(self, weight: Tensor, bias: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight, self.bias, self.shape = weight, bias, shape

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weight.T + self.bias).reshape(len(x), *self.shape)
