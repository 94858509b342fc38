"""A run as a folder that ``diffusers.AutoencoderKL.from_pretrained`` loads, and such a folder read.

The network ``autoencoder_kl`` names its parameters as that class does, but for the 1x1 convolutions about the code,
which belong to encoder and decoder here. Nothing of diffusers is needed.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vaes import __version__, files
from vaes.errors import UserError
from vaes.model import VAE

__all__ = ["CONFIG", "WEIGHTS", "Folder", "read_folder", "to_diffusers", "write_folder"]

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
NETWORK = "autoencoder_kl"

ABOUT_THE_CODE = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}
"""Our prefixes -> theirs; all others are the same."""

OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""How attention was called in folders before 2023."""


class Folder(NamedTuple):
    """What a diffusers folder holds, in our words."""

    network: dict[str, Any]  # options of the network
    z_channels: int
    channels: tuple[int, int]  # of images that go in, and of what comes out
    weights: dict[str, Tensor]  # encoder.* and decoder.*, float32
    statistics: dict[str, Any]  # scaling_factor, shift_factor, latents_mean, latents_std as far as it has them
    narrow: str = ""  # what the weights were before they became float32


def to_diffusers(model: VAE, section: Mapping[str, Any], image_shape: tuple[int, ...]) -> dict[str, Any]:
    """The ``config.json`` of a model that was built from a ``model`` section.

    Raises:
        UserError: its parts are not those of ``AutoencoderKL``.
    """
    network, likelihood = section["network"], section["likelihood"]
    for part, wanted in (("network", NETWORK), ("posterior", "gaussian")):
        if section[part]["kind"] != wanted:
            raise UserError(
                f"--to diffusers: AutoencoderKL has the {part} {wanted}, and this run has {section[part]['kind']}; "
                f"train with --model.{part}.kind {wanted}, or export --to onnx"
            )
    if section["decoder_spectral_norm"]:
        raise UserError("--to diffusers: AutoencoderKL has no spectral norm (model.decoder_spectral_norm)")
    link = likelihood.get("link")
    if link != "identity" or model.likelihood.channels(image_shape[0]) != image_shape[0]:
        raise UserError(
            f"--to diffusers: AutoencoderKL decodes to pixels themselves, and the likelihood {likelihood['kind']} "
            "makes them of the decoder's output; train with --model.likelihood.link identity and one scale"
        )
    if model.value_range != (-1.0, 1.0):
        raise UserError(f"--to diffusers: AutoencoderKL's pixels lie in (-1, 1), and this run's in {model.value_range}")
    widths = [network["ch"] * mult for mult in network["ch_mult"]]
    return {
        "_class_name": "AutoencoderKL",
        "_vaes_version": __version__,
        "in_channels": image_shape[0],
        "out_channels": image_shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "block_out_channels": widths,
        "layers_per_block": network["num_res_blocks"],
        "act_fn": "silu",
        "latent_channels": model.z_shape[0],
        "norm_num_groups": network["groups"],
        "sample_size": max(image_shape[1:]),
        "force_upcast": True,
        "use_quant_conv": network["quant_conv"],
        "use_post_quant_conv": network["quant_conv"],
        "mid_block_add_attention": network["attention"],
    }


def write_folder(model: VAE, document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``config.json`` and the weights, each whole or not at all; returns the paths.

    Raises:
        UserError: the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is no folder; give another with -o")
    files.refuse_unwritable(folder)
    files.refuse_links(folder, [CONFIG, WEIGHTS])
    weights = {
        _theirs(f"{part}.{name}"): tensor
        for part in ("encoder", "decoder")
        for name, tensor in getattr(model, part).state_dict().items()
    }
    files.write_atomic(folder / WEIGHTS, lambda path: files.write_tensors(path, weights, plain={"format": "pt"}))
    files.write_json(folder / CONFIG, document)
    return [folder / CONFIG, folder / WEIGHTS]


def read_folder(folder: Path) -> Folder:
    """Read a folder that diffusers or :func:`write_folder` wrote; weights in half precision become float32.

    Raises:
        UserError: it is no ``AutoencoderKL``, or one of another architecture than the network ``autoencoder_kl``.
    """
    path = folder / CONFIG
    try:
        said = json.loads(files.read_bytes(path, files.MAX_JSON).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'no JSON'})") from None
    if not isinstance(said, dict) or said.get("_class_name") != "AutoencoderKL":
        name = said.get("_class_name") if isinstance(said, dict) else None
        raise UserError(f"{path}: is of the class {name!r}; --init reads AutoencoderKL")
    try:
        found = _read(said)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    if not (folder / WEIGHTS).exists():
        there = sorted(other.name for other in folder.glob("diffusion_pytorch_model*"))
        raise UserError(
            f"{folder / WEIGHTS}: there is no such file{f' (there is {there[0]})' if there else ''}; save the model "
            "whole, as safetensors and without a variant"
        )
    given, _ = files.read_tensors(folder / WEIGHTS)
    weights: dict[str, Tensor] = {}
    for name, tensor in given.items():
        if not tensor.is_floating_point():
            raise UserError(f"{folder / WEIGHTS}: {name} is {tensor.dtype}, and weights are floating-point numbers")
        if _ours(name) in weights:
            raise UserError(f"{folder / WEIGHTS}: holds {_ours(name)} twice, {name} being a name of it too")
        weights[_ours(name)] = tensor.float()
    other = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in given.values()} - {"float32"})
    return found._replace(weights=weights, narrow=" and ".join(other))


def _read(said: Mapping[str, Any]) -> Folder:
    """A configuration in our words.

    Raises:
        ValueError: of what the network has not.
    """
    widths = [int(width) for width in said.get("block_out_channels", [64])]
    fixed = {
        "act_fn": ("silu", "silu"),
        "down_block_types": (["DownEncoderBlock2D"] * len(widths),) * 2,
        "up_block_types": (["UpDecoderBlock2D"] * len(widths),) * 2,
    }
    for key, (wanted, default) in fixed.items():
        if (value := said.get(key, default)) != wanted:
            raise ValueError(f"{key} is {value}, and the network {NETWORK} has {wanted}")
    quant = bool(said.get("use_quant_conv", True))
    if bool(said.get("use_post_quant_conv", True)) != quant:
        raise ValueError(f"use_quant_conv and use_post_quant_conv differ, and the network {NETWORK} has both or none")
    ch = math.gcd(*widths)
    network = {
        "kind": NETWORK,
        "ch": ch,
        "ch_mult": [width // ch for width in widths],
        "num_res_blocks": int(said.get("layers_per_block", 1)),
        "attention": bool(said.get("mid_block_add_attention", True)),
        "groups": int(said.get("norm_num_groups", 32)),
        "quant_conv": quant,
    }
    channels = int(said.get("in_channels", 3)), int(said.get("out_channels", 3))
    names = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
    statistics = {name: said[name] for name in names if said.get(name) is not None}
    return Folder(network, int(said.get("latent_channels", 4)), channels, {}, statistics)


def _theirs(name: str) -> str:
    for ours, theirs in ABOUT_THE_CODE.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _ours(name: str) -> str:
    for ours, theirs in ABOUT_THE_CODE.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    parts = name.split(".")
    if "attentions" in parts and parts[-2] in OLD:
        parts[-2] = OLD[parts[-2]]
    return ".".join(parts)
