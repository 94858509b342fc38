"""Parameters by how they are trained."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from vaes.objectives import Objective
from vaes.train.settings import Settings

__all__ = ["groups", "hold_encoder"]


def groups(objective: Objective, settings: Settings) -> list[dict[str, Any]]:
    """The optimiser's groups: first all that is trained as ``train`` says, then whatever differs.

    A module whose attribute ``training_options`` is a mapping has them for all its parameters: ``own_lr`` (a number in
    place of the training's learning rate, as the authors of a critic used one), ``betas``, ``weight_decay``, and
    ``matrix: False`` for weights that Muon must not orthogonalise, because their rows are things and no matrix, as
    those of every ``nn.Embedding`` are. Where modules lie in each other, the inner one's count.
    """
    own: dict[int, dict[str, Any]] = {}
    if settings.decoder_weight_decay is not None:
        own |= {id(p): {"weight_decay": settings.decoder_weight_decay} for p in objective.model.decoder.parameters()}
    for module in objective.modules():
        embedding = {"matrix": False} if isinstance(module, nn.Embedding | nn.EmbeddingBag) else {}
        options = embedding | dict(getattr(module, "training_options", {}))
        if options:
            own |= {id(p): own.get(id(p), {}) | options for p in module.parameters()}
    found: list[tuple[dict[str, Any], list[nn.Parameter]]] = [({}, [])]
    for parameter in objective.parameters():
        options = own.get(id(parameter), {})
        same = next((members for given, members in found if given == options), None)
        if same is None:
            found.append((options, [parameter]))
        else:
            same.append(parameter)
    return [{"params": members, "own_lr": None, "matrix": True} | options for options, members in found if members]


def hold_encoder(named: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Take the encoder's gradients out of a step, of the parameters of an objective or of a stack of them: an optimiser
    leaves a parameter without one, and its moments, as they are."""
    for name, parameter in named:
        if name.startswith("model.encoder."):
            parameter.grad = None
