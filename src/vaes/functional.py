"""Pure tensor mathematics of VAEs: densities, divergences and kernels, in nats.

Shapes: K importance samples, B batch, D latent dimensions. Nothing here draws random numbers or holds state.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

__all__ = [
    "Kernel",
    "feature_distance",
    "gaussian_kernel",
    "haar",
    "imq_kernel",
    "kl_normal",
    "lerp",
    "log_mean_exp",
    "log_normal",
    "mean_scaled_gaussian_kernel",
    "median_squared_distance",
    "mmd",
    "ms_ssim",
    "ms_ssim_scales",
    "slerp",
    "squared_distances",
    "ssim_maps",
    "to_float32",
]

LOG_2PI = math.log(2 * math.pi)

SSIM_WINDOW, SSIM_SIGMA, SSIM_K1, SSIM_K2 = 11, 1.5, 0.01, 0.03  # Wang et al. 2004, section III.C
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2; from fine to coarse
MS_SSIM_SMALLEST = 5
MS_SSIM_FLOOR = 1e-4
SMALLEST_FEATURES = 1e-6  # squared length of the features at a place, below which they are not stretched to length 1

Kernel = Callable[[Tensor, Tensor], Tensor]
"""A positive definite kernel: (N, D), (M, D) -> (N, M)."""


def to_float32(x: Tensor) -> Tensor:
    """Lift bfloat16 and float16 to float32 and leave wider types alone: a KL computed in bfloat16 has three digits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def bounded_logvar(logvar: Tensor) -> Tensor:
    """Log-variances kept within [-30, 20], where neither they nor their inverses overflow: those of latent diffusion's
    autoencoder (Rombach et al., 2022, https://arxiv.org/abs/2112.10752, its code). What is beyond has no gradient."""
    return logvar.clamp(-30.0, 20.0)


def log_normal(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Log-density of a normal, elementwise, in nats: ``-(log 2 pi + logvar + (x - mean)^2 / exp(logvar)) / 2``.

    >>> log_normal(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    tensor([-0.9189])
    """
    return -0.5 * (LOG_2PI + logvar + (x - mean).square() * torch.exp(-logvar))


def kl_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)), elementwise, in nats: ``(mean^2 + exp(logvar) - 1 - logvar) / 2``.

    Kingma & Welling, Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114, appendix B.
    ``expm1`` keeps the result exact near the prior, where ``exp(logvar) - 1`` would cancel.

    >>> kl_normal(torch.tensor([1.0]), torch.zeros(1))
    tensor([0.5000])
    """
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar)


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    """``log mean exp(x)`` over one dimension, without overflow.

    >>> log_mean_exp(torch.tensor([1000.0, 1000.0]), 0)
    tensor(1000.)
    """
    return torch.logsumexp(x, dim) - math.log(x.shape[dim])


class _SquaredDistances(torch.autograd.Function):
    """With a gradient of its own: that of ``torch.cdist`` holds (N, M, D) on an accelerator and has no second one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        centre = y.mean(0)  # differences do not care; the products below would lose digits of codes far from 0
        x, y = x - centre, y - centre
        of_x = x * gradient.sum(1)[:, None] - gradient @ y
        of_y = y * gradient.sum(0)[:, None] - gradient.T @ x
        return 2 * of_x, 2 * of_y


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances, (N, D), (M, D) -> (N, M), never negative, without holding (N, M, D).

    Differences are taken one by one: the expansion ``|x|^2 + |y|^2 - 2 x.y`` loses the small distances.
    """
    distances: Tensor = _SquaredDistances.apply(x, y)
    return distances


class _Pairs(torch.autograd.Function):
    """Distances of the pairs of one sample, as constants; ``torch.pdist`` has no rule under vmap."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.pdist(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
        return torch.stack([_Pairs.apply(each) for each in x.unbind(in_dims[0])]), 0


def median_squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Median squared distance between distinct points of the pooled sample, detached: the median heuristic's bandwidth,
    above 0 where most points are equal too.

    Gretton et al., A Kernel Two-Sample Test, JMLR 2012, section 8.
    """
    distances: Tensor = _Pairs.apply(torch.cat([x, y]).detach())
    return distances.square().median().clamp_min(torch.finfo(x.dtype).eps)


def gaussian_kernel(squared_bandwidth: Tensor | float) -> Kernel:
    """``k(x, y) = exp(-|x - y|^2 / squared_bandwidth)``; a bandwidth of ``2 sigma^2`` is the usual sigma."""
    return lambda x, y: torch.exp(-squared_distances(x, y) / squared_bandwidth)


def mean_scaled_gaussian_kernel(x: Tensor, y: Tensor) -> Tensor:
    """``k(x, y) = exp(-|x - y|^2 / D^2)``, the kernel of the first MMD-VAE code.

    Zhao, Song & Ermon, InfoVAE, 2017, https://arxiv.org/abs/1706.02262 (their released code; the paper names none).
    Two draws from N(0, I) lie at a squared distance of about 2 D, so the kernel is about ``exp(-2 / D)`` everywhere:
    0.37 at D = 2 but 0.98 at D = 128, where the MMD sees little beyond a difference of means. Prefer
    :func:`gaussian_kernel` with the median heuristic, or :func:`imq_kernel`, in more than a few dimensions.
    """
    return torch.exp(-squared_distances(x, y) / x.shape[1] ** 2)


def imq_kernel(
    squared_scale: Tensor | float, scales: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
) -> Kernel:
    """``k(x, y) = mean_s C_s / (C_s + |x - y|^2)`` with ``C_s = s * squared_scale``: the inverse multiquadric over
    several scales.

    Tolstikhin et al., Wasserstein Auto-Encoders, 2018, https://arxiv.org/abs/1711.01558, section 4, where
    ``squared_scale = 2 D sigma_z^2``, the expected squared distance of two draws from the prior. Its tails are heavy,
    so codes far from the prior still feel a gradient. Theirs sums over the scales; the mean keeps ``k(x, x) = 1``.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        distances = squared_distances(x, y)
        constants = [s * squared_scale for s in scales]
        return torch.stack([c / (c + distances) for c in constants]).mean(0)

    return kernel


def mmd(x: Tensor, y: Tensor, kernel: Kernel, *, biased: bool = False) -> Tensor:
    """Squared maximum mean discrepancy between samples x (N, D) and y (M, D), a scalar.

    ``E k(x, x') + E k(y, y') - 2 E k(x, y)``. The V-statistic (``biased=True``) keeps the diagonal and is never
    negative; the U-statistic leaves it out, is unbiased, and can be slightly negative.

    Gretton et al., A Kernel Two-Sample Test, JMLR 2012, equations 3 (U) and 5 (V).
    """
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    if biased:
        return xx.mean() + yy.mean() - 2 * xy.mean()
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"the unbiased MMD needs two samples on each side, got {n} and {m}")
    return (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1)) - 2 * xy.mean()


def ssim_maps(x: Tensor, y: Tensor, data_range: float, window: int = SSIM_WINDOW) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure of images (N, C, H, W) at every place where the window fits, two maps (N, C, H -
    window + 1, W - window + 1), both 1 for equal images. Their product is SSIM.

    ``(2 m m' + c1) / (m^2 + m'^2 + c1)`` and ``(2 s_xy + c2) / (s_x^2 + s_y^2 + c2)``, of moments under a Gaussian
    window of sigma 1.5 (in proportion, where the window is not 11 wide); ``c1 = (0.01 data_range)^2``, ``c2 = (0.03
    data_range)^2``. Variances are those of the window's weights, not scaled to be unbiased.

    Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE TIP 2004, equation 13.
    """
    offset = torch.arange(window, dtype=x.dtype, device=x.device) - window // 2
    weight = torch.exp(-offset.square() / (2 * (SSIM_SIGMA * window / SSIM_WINDOW) ** 2))
    weight = weight / weight.sum()

    def blur(image: Tensor) -> Tensor:
        flat = image.flatten(0, 1)[:, None]
        flat = conv2d(conv2d(flat, weight[None, None, :, None]), weight[None, None, None, :])
        return flat.view(*image.shape[:2], *flat.shape[-2:])

    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x.square(), blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return luminance, (2 * covariance + c2) / (var_x + var_y + c2)


def ms_ssim_scales(side: int) -> tuple[int, int]:
    """How many scales of how wide a window images whose smaller side is this have: as many of five as keep the window
    of 11 inside (176 pixels and more: five; 28 and 32: two); below 11 pixels one, of the widest odd window that fits.

    Raises:
        ValueError: a side below 5 pixels.

    >>> [ms_ssim_scales(side) for side in (176, 64, 28, 8)]
    [(5, 11), (3, 11), (2, 11), (1, 7)]
    """
    if side < MS_SSIM_SMALLEST:
        raise ValueError(f"a side of {side} pixels is too small for structural similarity: its window is 5x5 at least")
    if side < SSIM_WINDOW:
        return 1, side - 1 + side % 2
    return max(n for n in range(1, 1 + len(MS_SSIM_WEIGHTS)) if side >> (n - 1) >= SSIM_WINDOW), SSIM_WINDOW


def ms_ssim(x: Tensor, y: Tensor, data_range: float = 1.0) -> Tensor:
    """Multi-scale structural similarity of images (N, C, H, W), (N,), 1 for equal images: ``prod_j m_j^w_j``, m_j being
    the mean over places of the contrast-structure at scale j, and at the last scale of the whole SSIM. From one scale
    to the next images are averaged over 2x2 pixels; a last odd row or column is left out.

    Wang, Simoncelli & Bovik, Multiscale Structural Similarity for Image Quality Assessment, 2003,
    https://doi.org/10.1109/ACSSC.2003.1292216, equation 7. With fewer scales than five (:func:`ms_ssim_scales`) their
    weights are the first ones, made to sum to 1. Colour channels are taken one by one and averaged, as the paper is on
    grey images. A mean below 0.0001 (of images that are each other's negative) counts as 0.0001: the power of a
    negative number is none, and that of 0 has no gradient.

    Args:
        x: images whose black is 0.
        y: others of their shape.
        data_range: the highest possible value.

    Raises:
        ValueError: a side below 5 pixels.
    """
    scales, window = ms_ssim_scales(min(x.shape[-2:]))
    weights = MS_SSIM_WEIGHTS[:scales]
    total = 1.0 if scales == len(MS_SSIM_WEIGHTS) else sum(weights)  # all five sum to 1.0001, in the paper too
    found: Tensor | float = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
        luminance, similar = ssim_maps(x, y, data_range, window)
        similar = similar * luminance if scale == scales - 1 else similar
        found = similar.flatten(2).mean(2).clamp_min(MS_SSIM_FLOOR) ** (weight / total) * found
    assert isinstance(found, Tensor)
    return found.mean(1)


def haar(x: Tensor, levels: int) -> list[Tensor]:
    """Images (..., H, W) -> the three bands of detail (3, ..., H / 2, W / 2) of each level, from fine to coarse, and
    what is left, twice the mean of four pixels a level: an orthonormal transform where sides are even. An odd side is
    made even by repeating its last row or column.

    Haar, Zur Theorie der orthogonalen Funktionensysteme, 1910; Mallat, 1989.
    """
    found = []
    for _ in range(levels):
        x = torch.cat([x, x[..., -1:, :]], -2) if x.shape[-2] % 2 else x
        x = torch.cat([x, x[..., :, -1:]], -1) if x.shape[-1] % 2 else x
        top, bottom = x[..., ::2, :], x[..., 1::2, :]
        a, b, c, d = top[..., ::2], top[..., 1::2], bottom[..., ::2], bottom[..., 1::2]
        found.append(torch.stack([a - b + c - d, a + b - c - d, a - b - c + d]) / 2)
        x = (a + b + c + d) / 2
    return [*found, x]


def feature_distance(x: Sequence[Tensor], y: Sequence[Tensor], weights: Sequence[Tensor] | None = None) -> Tensor:
    """Maps of two sets of images in the layers of a network, each (N, C', H', W') -> ``sum_l mean_hw w_l |u_l(x) -
    u_l(y)|^2`` (N,), u_l being a map whose features have length 1 at each place; w_l (C',) are 1 if not given.

    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018,
    https://arxiv.org/abs/1801.03924, equation 1.
    """
    found = []
    for number, (a, b) in enumerate(zip(x, y, strict=True)):
        squares = (_unit_length(a) - _unit_length(b)).square()
        squares = squares if weights is None else weights[number][:, None, None] * squares
        found.append(squares.sum(1).mean((1, 2)))
    return torch.stack(found).sum(0)


def _unit_length(features: Tensor) -> Tensor:
    return features * (features.square().sum(1, keepdim=True) + SMALLEST_FEATURES).rsqrt()


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The straight line from a to b at t in [0, 1], broadcasting."""
    return a + (b - a) * t


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The great arc from a (..., D) to b (..., D) at t (..., 1), its radius going linearly from |a| to |b|.

    Codes of a standard normal lie near a sphere of radius sqrt(D), which a straight line leaves. Where a and b are
    parallel the arc is that line; where they are opposite, to rounding, no arc is singled out, and the straight line is
    taken too.

    White, Sampling Generative Networks, 2016, https://arxiv.org/abs/1609.04468, section 2.1; there the ends have equal
    length. Written as ``cos(t w) a + sin(t w) c`` with c at right angles to a, which has the radius of the arc however
    near to opposite a and b are; the usual ``(sin((1 - t) w) a + sin(t w) b) / sin(w)`` divides two roundings there.
    """
    radius_a, radius_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / radius_a.clamp_min(1e-12), b / radius_b.clamp_min(1e-12)
    cosine = (unit_a * unit_b).sum(-1, keepdim=True)
    across = unit_b - cosine * unit_a
    across = across - (unit_a * across).sum(-1, keepdim=True) * unit_a  # the first leaves rounding along a
    sine = across.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, cosine)
    arc = torch.cos(t * angle) * unit_a + torch.sin(t * angle) * across / sine.clamp_min(1e-30)
    curved = (sine > 8 * torch.finfo(sine.dtype).eps) & (radius_a * radius_b > 0)
    return torch.where(curved, lerp(radius_a, radius_b, t) * arc, lerp(a, b, t))
