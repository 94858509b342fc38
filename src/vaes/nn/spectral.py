"""Weights whose largest singular value is 1."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["SpectralNorm", "follow", "spectral_norm"]

WARM_UP = 15
"""Power iterations when it is built; then one a training pass follows the weight."""


class SpectralNorm(nn.Module):
    """``W / s``, s being the largest singular value of the weight as a matrix, as power iteration knows it.

    Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018, https://arxiv.org/abs/1802.05957,
    algorithm 1. With the unit vector u that it has got to, ``s = |W' u|``: never above the true value, and with its
    gradient ``u v'``, v = W' u / s. A weight of zeros, as residual blocks begin with, stays one.

    A function of the weight and the buffer u alone, which changes nowhere but in :meth:`follow`: torch's own moves at
    each look at the weight, and keeps v beside u, whose running averages are no pair of unit vectors.

    Args:
        weight: the first one that it normalises, a matrix or a kernel.
        axis: of the weight's outputs, the matrix's rows.
    """

    u: Tensor

    def __init__(self, weight: Tensor, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("u", torch.randn(weight.shape[axis], dtype=weight.dtype, device=weight.device))
        for _ in range(0 if weight.is_meta else WARM_UP):
            self.follow(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight -> one of the same shape."""
        # Without autocast, whose eight bits would be the weight's error. u is copied, because the next pass moves it.
        with torch.autocast(weight.device.type, enabled=False):
            u = self.u.clone()
            size = (u @ self._matrix(weight)).norm() / u.norm()
            return weight / torch.where(size > 0, size, 1.0)

    @torch.no_grad()
    def follow(self, weight: Tensor) -> None:
        """One step of power iteration."""
        with torch.autocast(weight.device.type, enabled=False):
            matrix = self._matrix(weight)
            found = matrix @ (self.u @ matrix)
            size = found.norm()
            self.u.copy_(torch.where(size > 0, found / size, self.u))

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.axis, 0).flatten(1)


def spectral_norm(network: nn.Module, *, by_itself: bool = True) -> nn.Module:
    """The same network; from now on its linear and convolution layers divide their weights by their spectral norm, and
    each pass in training mode follows these by one power iteration first; or, where not ``by_itself``, each
    :func:`follow`."""
    for layer in [*network.modules()]:
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            axis = 1 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 0
            norm = SpectralNorm(layer.weight.detach(), axis)
            parametrize.register_parametrization(layer, "weight", norm, unsafe=True)  # whose check meta tensors fail
    if by_itself:
        network.register_forward_pre_hook(_follow)
    return network


def follow(network: nn.Module) -> None:
    """One step of power iteration for each weight that :func:`spectral_norm` has made one of norm 1."""
    for part in network.modules():
        if isinstance(part, parametrize.ParametrizationList) and isinstance(part[0], SpectralNorm):
            part[0].follow(part.original)


def _follow(network: nn.Module, _: object) -> None:
    if network.training:
        follow(network)
