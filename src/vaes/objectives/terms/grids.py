"""Terms for codes that are grids: what a map of places owes to the image that it is a map of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity, normalize, relu

from vaes.functional import to_float32
from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
from vaes.objectives.terms.similarity import FindFeatures, InFeatures

__all__ = ["Alignment", "Equivariance"]

SCALES = (1.0, 0.75, 0.5, 0.25)


class Equivariance(Term):
    """``1/2 E |t x - E[x | t z]|^2``, t turning by a multiple of 90 degrees and scaling by 1, 3/4, 1/2 or 1/4: codes
    that are turned and shrunk are to decode to images that are. 0 where the code moves with the image and
    reconstructions are perfect; the squared error, halved, where t changes nothing.

    Kouzelis et al., EQ-VAE: Equivariance Regularized Latent Space for Improved Generative Image Modeling, 2025,
    https://arxiv.org/abs/2502.09509, section 3.2, the implicit loss: the distance of codes itself, which small codes
    make small, is not used. t is the step's, each of the 16 (but the one that changes nothing) in turn where the paper
    draws it; codes and images are scaled by means over areas; of the first sample of each image.

    Args:
        z_shape: (C, h, w).
    """

    needs = frozenset({"x_mean"})
    compares = False
    reads_model = True

    def __init__(self, z_shape: tuple[int, ...]) -> None:
        super().__init__()
        if len(z_shape) != 3:
            raise ValueError(
                f"codes of {z_shape[0]} numbers have no places to turn or scale: it takes a network whose codes are "
                "grids (model.network autoencoder_kl)"
            )

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar."""
        assert drawn.model is not None
        model, (turns, scale) = drawn.model, divmod(1 + context.step % 15, 4)
        z = turned(trace.z[0], turns, SCALES[scale])
        made = model.likelihood.mean(to_float32(model.decoder(z)))
        x = _pooled(trace.x.rot90(turns, (2, 3)), made.shape[2:])
        return 0.5 * (x - made).flatten(1).square().sum(1).mean()


def turned(x: Tensor, turns: int, scale: float) -> Tensor:
    """Maps (N, C, h, w) turned by 90 degrees so many times, each side scaled to the next whole number, 1 at least."""
    x = x.rot90(turns, (2, 3))
    return _pooled(x, [max(1, round(scale * side)) for side in x.shape[2:]])


def _pooled(x: Tensor, sides: Sequence[int]) -> Tensor:
    return x if [*sides] == [*x.shape[2:]] else adaptive_avg_pool2d(x, (sides[0], sides[1]))


class Alignment(InFeatures):
    """``mean over places of max(0, 1 - m1 - cos(Wz, f)) + mean over pairs of places of max(0, |cos(z, z') - cos(f, f')|
    - m2)``: what lies where in the code, held to the features f of a fixed network at the same places, and so the
    likeness of places to one another. W is a matrix that the term learns.

    Yao, Yang & Wang, Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models, 2025,
    https://arxiv.org/abs/2501.01423, equations 2 to 6, whose features are a foundation model's (``timm:NAME``); its
    weight, which follows the gradients there, is a constant here. Of the first sample of each image; the features are
    the last of the network's maps, means over areas where it is finer than the code.

    Args:
        z_shape: (C, h, w).
        image_shape: (C, H, W).
        value_range: the lowest and highest pixel value.
        find_features: of the network.
        features: as ``objective.perceptual.features``.
        cosine_margin: m1; a cosine above 1 - m1 is good enough.
        distance_margin: m2; a difference of cosines below it is.
    """

    compares = False
    unit = ""
    silence = "codes are as near to the features as the margins ask, or the weight is too small"

    def __init__(
        self,
        z_shape: tuple[int, ...],
        image_shape: tuple[int, int, int],
        value_range: tuple[float, float],
        find_features: FindFeatures,
        *,
        features: str = "auto",
        cosine_margin: float = 0.5,
        distance_margin: float = 0.25,
    ) -> None:
        super().__init__()
        if len(z_shape) != 3:
            raise ValueError(
                f"codes of {z_shape[0]} numbers have no places to align: it takes a network whose codes are grids "
                "(model.network autoencoder_kl)"
            )
        if min(cosine_margin, distance_margin) < 0:
            raise ValueError(f"margins must be 0 or more, got {cosine_margin} and {distance_margin}")
        self.margins, (self.low, self.high) = (cosine_margin, distance_margin), value_range
        self._hold(*find_features(features))
        self.note = f"codes are aligned with the features of {self.name}"
        channels = self.network(torch.zeros(1, *image_shape))[-1].shape[1]
        self.project = nn.Conv2d(z_shape[0], channels, 1, bias=False)

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar."""
        with torch.autocast(trace.x.device.type, enabled=False):
            z = to_float32(trace.z[0])
            features = self.network((to_float32(trace.x) - self.low) / (self.high - self.low))[-1].detach()
            features = _pooled(features, z.shape[2:])
            near = relu(1 - self.margins[0] - cosine_similarity(self.project(z), features, dim=1)).mean()
            alike = relu((_cosines(z) - _cosines(features)).abs() - self.margins[1]).mean()
            return near + alike


def _cosines(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> the cosine of each pair of places (N, h w, h w)."""
    unit = normalize(maps.flatten(2), dim=1)
    return unit.mT @ unit
