"""How close reconstructions come: MSE, PSNR and SSIM, per image and on average, on images (N, C, H, W)."""

from collections.abc import Callable

import torch
from torch import Tensor

from vaes import functional as F
from vaes.evaluate.record import Array, Metric, NotApplicable, Skipped, attempt, mean_metric, same_length, to_float64

__all__ = ["mse", "psnr", "reconstruction_metrics", "ssim"]


def _images(x: Array, y: Array) -> tuple[Tensor, Tensor]:
    """Check two sets of images (N, C, H, W); float64 on one device.

    Raises:
        NotApplicable: not images, not finite, or none.
        UserError: of different shapes.
    """
    same_length(images=x, reconstructions=y)
    found = []
    for images, what in ((x, "images"), (y, "reconstructions")):
        tensor = torch.as_tensor(images).detach()
        if tensor.ndim != 4 or tensor.numel() == 0:
            raise NotApplicable(f"{what} are of shape {tuple(tensor.shape)}: (N, C, H, W) is wanted")
        bad = ~torch.isfinite(tensor).flatten(1).all(1)
        if bad.any():
            raise NotApplicable(f"{what} hold NaN or infinity in {int(bad.sum())} of {len(tensor)} images")
        # uint8 differences wrap around, and float32 loses the digits of a small variance.
        found.append(to_float64(tensor))
    x, y = found
    if x.shape != y.shape:
        raise NotApplicable(f"images are {tuple(x.shape)} and reconstructions {tuple(y.shape)}: they must be alike")
    return x, y.to(x.device)


def mse(x: Array, y: Array) -> Tensor:
    """Mean squared error of each image over channels and pixels, (N,), in squared units of the images given.

    Args:
        x: (N, C, H, W) images.
        y: (N, C, H, W) reconstructions.

    Raises:
        NotApplicable: not images, or not finite.
        UserError: of different lengths.
    """
    x, y = _images(x, y)
    return (x - y).square().flatten(1).mean(1)


def psnr(x: Array, y: Array, *, data_range: float) -> Tensor:
    """Peak signal-to-noise ratio of each image, (N,), dB: ``10 log10(data_range^2 / MSE)``; infinite for equal images.

    Args:
        x: (N, C, H, W) images.
        y: (N, C, H, W) reconstructions.
        data_range: highest less lowest possible value: 1 for [0, 1], 2 for [-1, 1], 255 for bytes.

    Raises:
        NotApplicable: not images, or not finite.
        UserError: of different lengths.
    """
    return 10 * torch.log10(data_range**2 / mse(x, y))


def ssim(x: Array, y: Array, *, data_range: float) -> Tensor:
    """Structural similarity of each image, (N,), 1 for equal images: the mean over window places and channels of the
    product of both :func:`vaes.functional.ssim_maps`.

    A Gaussian window of 11 x 11 at every place where it fits the image (no padding). Colour channels are taken one by
    one and averaged (the paper is on grey images).

    Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE TIP 2004, equation 13.

    Args:
        x: (N, C, H, W) images, H and W at least 11.
        y: (N, C, H, W) reconstructions.
        data_range: highest less lowest possible value.

    Raises:
        NotApplicable: not images, not finite, or smaller than the window.
        UserError: of different lengths.
    """
    x, y = _images(x, y)
    if min(x.shape[-2:]) < F.SSIM_WINDOW:
        raise NotApplicable(f"images are {x.shape[-2]}x{x.shape[-1]}: SSIM's window is {F.SSIM_WINDOW}x{F.SSIM_WINDOW}")
    maps = (F.ssim_maps(a, b, data_range) for a, b in zip(x.split(256), y.split(256), strict=True))
    # Five filtered maps of a whole test set would fill the memory.
    return torch.cat([(luminance * similar).flatten(1).mean(1) for luminance, similar in maps])


def reconstruction_metrics(
    x: Array, y: Array, *, data_range: float, keep: Callable[[str, Tensor], None] = lambda name, values: None
) -> list[Metric | Skipped]:
    """Means over images of :func:`mse`, :func:`psnr` and :func:`ssim`, with standard errors over images.

    PSNR is skipped where an image equals its reconstruction (it is infinite), SSIM where images are smaller than its
    window.

    Args:
        x: (N, C, H, W) images.
        y: (N, C, H, W) reconstructions.
        data_range: highest less lowest possible value.
        keep: is given each metric's name and its values (N,).

    Raises:
        UserError: of different lengths.
    """
    scale = f"values spanning {data_range:g}"

    def mean(name: str, values: Tensor, about: str) -> Metric:
        keep(name, values.cpu())
        return mean_metric(name, values.cpu(), f"mean over images of {about}")

    def finite_psnr() -> Metric:
        values = psnr(x, y, data_range=data_range)
        if torch.isinf(values).any():
            raise NotApplicable(
                f"{int(torch.isinf(values).sum())} images equal their reconstructions: PSNR is infinite"
            )
        return mean("psnr", values, f"10 log10(range^2 / MSE), dB, {scale}")

    error = f"the mean squared error per channel and pixel, {scale}"
    similarity = f"SSIM, Gaussian window 11x11, sigma 1.5, K 0.01 and 0.03, no padding, {scale}; Wang et al. 2004"
    return (
        attempt("mse", lambda: mean("mse", mse(x, y), error))
        + attempt("psnr", finite_psnr)
        + attempt("ssim", lambda: mean("ssim", ssim(x, y, data_range=data_range), similarity))
    )
