"""Published networks in whose feature maps a training compares images: LPIPS's and those of timm, both extras."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaes.errors import UserError

__all__ = ["LPIPSMaps", "Published", "TimmMaps", "is_published", "published"]


class Published(NamedTuple):
    """A network that a run folder need not hold."""

    name: str
    maps: nn.Module


class _OfColour(nn.Module):
    """A network of colour images that sees grey ones three times, and its own standardisation."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Any, std: Any) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) in [0, 1] -> the maps, from fine to coarse."""
        return [*self.network((x.to(self.mean.dtype).expand(-1, 3, -1, -1) - self.mean) / self.std)]


class LPIPSMaps(_OfColour):
    """The five maps of LPIPS's VGG-16, and its weights for each channel.

    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018,
    https://arxiv.org/abs/1801.03924, appendix B; version 0.1.

    Args:
        made: an ``lpips.LPIPS``.
    """

    def __init__(self, made: nn.Module) -> None:
        scaling: Any = made.scaling_layer  # of images in [-1, 1]
        super().__init__(made.net, (scaling.shift + 1) / 2, scaling.scale / 2)  # type: ignore[arg-type]
        for number, layer in enumerate(made.lins):  # type: ignore[arg-type]
            self.register_buffer(f"weight{number}", layer.model[-1].weight.detach().flatten())
        self.layers = len(made.lins)  # type: ignore[arg-type]

    def weights(self) -> list[Tensor]:
        """Of the channels of each map (C',)."""
        return [self.get_buffer(f"weight{number}") for number in range(self.layers)]


class TimmMaps(_OfColour):
    """The maps of each stage of a network of timm.

    Args:
        made: by ``timm.create_model(..., features_only=True)``.
        config: its ``mean`` and ``std``, of images in [0, 1].
    """

    def __init__(self, made: nn.Module, config: Any) -> None:
        super().__init__(made, config["mean"], config["std"])
        self.channels_last = getattr(made, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> list[Tensor]:
        """As those of all: some transformers of timm have their channels last."""
        return [found.movedim(-1, 1) if self.channels_last else found for found in super().forward(x)]


def is_published(name: str) -> bool:
    """Whether a name is one of :func:`published`'s."""
    return name == "lpips" or name.startswith("timm:")


def published(name: str, image_shape: tuple[int, int, int]) -> Published:
    """The network of a name, ``lpips`` or ``timm:NAME``, with its published weights, which are downloaded once.

    Raises:
        UserError: its package is missing, there is no such network, its weights cannot be had, or it does not take
            these images.
    """
    if image_shape[0] not in (1, 3):
        raise UserError(f"{name} sees images of 1 or 3 channels, and these have {image_shape[0]}")
    kind = name.partition(":")[0]
    module = _imported(kind)
    if kind == "lpips":
        maps = _made(name, lambda: LPIPSMaps(module.LPIPS(net="vgg", verbose=False)))
    else:
        maps = _made(name, lambda: _of_timm(module, name.removeprefix("timm:"), image_shape[1:]))
    maps = maps.eval().requires_grad_(False)
    try:
        with torch.no_grad():
            found = maps(torch.zeros(1, *image_shape))
        if not found or any(each.dim() != 4 for each in found):
            raise ValueError("its features are no maps (N, C, H, W)")
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f"{name} does not take images of {image_shape[1]}x{image_shape[2]}: {_line(error)}") from None
    return Published(name, maps)


def _of_timm(timm: Any, name: str, sides: tuple[int, ...]) -> TimmMaps:
    published = timm.get_pretrained_cfg(name)
    sized = {"img_size": sides} if published is not None and published.fixed_input_size else {}  # of transformers
    made = timm.create_model(name, pretrained=True, features_only=True, **sized)
    return TimmMaps(made, timm.data.resolve_model_data_config(made))


def _imported(kind: str) -> Any:
    try:
        return importlib.import_module(kind)
    except ImportError as error:
        raise UserError(f"{kind} cannot be imported ({_line(error)}); pip install 'vaes[{kind}]'") from None


def _made(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except Exception as error:  # what a hub, a server or a file's reader raises has no type of its own
        raise UserError(
            f"{name}: no such network, or its weights cannot be had ({_line(error)}); they are downloaded once, which "
            "takes a network"
        ) from None


def _line(error: BaseException) -> str:
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__
