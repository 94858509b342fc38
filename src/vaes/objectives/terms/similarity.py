"""Terms of how alike an image and its reconstruction look: additions to a bound, no densities of pixels."""

import copy
import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaes import functional as F
from vaes.errors import UserError
from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term

__all__ = ["MSSSIM", "FindFeatures", "InFeatures", "Perceptual", "Wavelet", "constant"]

FindFeatures = Callable[[str], tuple[str, nn.Module]]
"""Of a feature network's name: what it is called in full, and images (N, C, H, W) in [0, 1] -> a sequence of maps, each
(N, C', H', W')."""


class _OfImages(Term):
    """``1/K sum_k E of a distance between an image and its reconstruction``, the mean of p(x|z)."""

    needs = frozenset({"x_mean"})
    compares = False
    unit = ""

    def __init__(self, value_range: tuple[float, float]) -> None:
        super().__init__()
        self.low, self.high = value_range

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar; over K importance samples, the mean."""
        assert trace.x_mean is not None
        with torch.autocast(trace.x.device.type, enabled=False):  # differences of squares in bfloat16 are noise
            y = self._unit(trace.x_mean)
            x = self._unit(trace.x).expand_as(y)
            return self.distance(x.flatten(0, 1), y.flatten(0, 1)).mean()

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> (N,), 0 where they are equal."""
        raise NotImplementedError

    def _unit(self, x: Tensor) -> Tensor:
        return (F.to_float32(x) - self.low) / (self.high - self.low)


class MSSSIM(_OfImages):
    """``1 - MS-SSIM`` of images and reconstructions on [0, 1], from 0 to 1: see :func:`vaes.functional.ms_ssim`.

    At each scale ``1 - contrast-structure = s_{x-y}^2 / (s_x^2 + s_y^2 + c2)``: the error's variance under a window
    over that of the images. Images below 176 pixels have fewer than five scales, below 11 pixels a smaller window.

    Snell et al., Learning to Generate Images with Perceptual Similarity Metrics, 2017,
    https://arxiv.org/abs/1511.06409, section 3.

    Args:
        image_shape: (C, H, W).
        value_range: the lowest and highest pixel value.

    Raises:
        ValueError: images with a side below 5 pixels.
    """

    def __init__(self, image_shape: tuple[int, int, int], value_range: tuple[float, float]) -> None:
        super().__init__(value_range)
        _, h, w = image_shape
        scales, window = F.ms_ssim_scales(min(h, w))
        if scales < len(F.MS_SSIM_WEIGHTS):
            self.note = f"images of {h}x{w} have room for {scales} of 5 scales, windows of {window}x{window}"

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> (N,)."""
        return 1 - F.ms_ssim(x, y)


class Wavelet(_OfImages):
    """``sum over levels, bands and places of sqrt(d^2 + 1e-6) - 1e-3``, d being the difference of image and
    reconstruction in an orthonormal Haar wavelet's bands of detail, on [0, 1]: absolute errors of edges at each scale,
    which pixel by pixel are small beside those of what is flat.

    The Charbonnier loss of the bands of detail of Sadat et al., LiteVAE, 2024, https://arxiv.org/abs/2405.14477.

    Args:
        image_shape: (C, H, W).
        value_range: the lowest and highest pixel value.
        levels: how often the image is halved; a side that is odd is first made even by repeating its last row.
    """

    def __init__(self, image_shape: tuple[int, int, int], value_range: tuple[float, float], *, levels: int = 3) -> None:
        super().__init__(value_range)
        side = min(image_shape[1:])
        if levels < 1 or side < 2**levels:
            raise ValueError(f"levels must be 1 or more, 2^levels at most the {side} pixels of a side, got {levels}")
        self.levels = levels

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> (N,)."""
        *bands, _ = F.haar(x - y, self.levels)
        found = [((band.square() + 1e-6).sqrt() - 1e-3).flatten(1).sum(1) for band in bands]
        return torch.stack(found).sum(0)


class InFeatures(Term):
    """A term that looks at images through a fixed network: a copy whose weights are constants, trained by nothing; a
    checkpoint holds their hash alone, which must be that of the network that a training goes on with."""

    name: str
    network: nn.Module

    def _hold(self, name: str, network: nn.Module) -> None:
        self.name, self.network = name, constant(network)
        self._sha256 = _digest(self.network)

    def train(self, mode: bool = True) -> "InFeatures":
        """The network stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def get_extra_state(self) -> Tensor:
        """The network's SHA-256, for the checkpoint."""
        return torch.tensor(list(self._sha256), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compare it with a checkpoint's.

        Raises:
            UserError: it is another.
        """
        if (saved := bytes(state.tolist())) != self._sha256:
            raise UserError(
                f"objective: a term looks at images in the features of {self.name} ({self._sha256.hex()[:8]}), and the "
                f"checkpoint was trained with others ({saved.hex()[:8]}); put the run's own perceptual.safetensors back"
            )


class Perceptual(_OfImages, InFeatures):
    """``sum_l mean_hw w_l |u_l(x) - u_l(y)|^2`` between images and reconstructions on [0, 1]: u_l are the features of a
    fixed network at layer l, at each place made a vector of length 1.

    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018,
    https://arxiv.org/abs/1801.03924, equation 1, all weights 1 but with the features ``lpips``, which have the paper's
    for each channel; the loss of Johnson, Alahi & Fei-Fei, Perceptual Losses for Real-Time Style Transfer and
    Super-Resolution, 2016, https://arxiv.org/abs/1603.08155, section 3.2, but for the length.

    The network is a copy whose weights are constants: they are trained by nothing, and a checkpoint holds their hash
    alone, which must be that of the network that a training goes on with.

    Args:
        value_range: the lowest and highest pixel value.
        find_features: of the network.
        features: ``classifier``, trained on the labels of the training images before the training; ``pretext``, on what
            unlabelled ones set as tasks; ``random``, not trained; ``auto``, the first of these that the images allow;
            the path of such a network's .safetensors file; ``lpips``, VGG-16's with the weights of LPIPS (an extra,
            vaes[lpips]); or ``timm:NAME``, those of a model of timm (vaes[timm]).
    """

    silence = "it does nothing"

    def __init__(
        self, value_range: tuple[float, float], find_features: FindFeatures, *, features: str = "auto"
    ) -> None:
        super().__init__(value_range)
        self._hold(*find_features(features))
        self.note = f"images are compared in the features of {self.name}"

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> (N,)."""
        of_channels = getattr(self.network, "weights", None)
        weights = None if of_channels is None else of_channels()
        return F.feature_distance(self.network(x), self.network(y), weights)


def constant(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose weights are buffers that no state dict holds: what moves a module moves them, and
    nothing trains, averages or saves them."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        for name, tensor in tensors.items():
            delattr(module, name)
            module.register_buffer(name, tensor.detach(), persistent=False)
    return network


def _digest(network: nn.Module) -> bytes:
    found = hashlib.sha256()
    for name, tensor in network.named_buffers():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        found.update(tensor.cpu().contiguous().numpy().tobytes())
    return found.digest()
