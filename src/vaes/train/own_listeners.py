"""What a training does beside its steps without being asked by its caller."""

from typing import TYPE_CHECKING

from vaes.train.listeners import Lines, Listener, Pictures, Planes, Validation
from vaes.train.mirror import Mirror
from vaes.train.pulls import Pulls

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["own_listeners"]


def own_listeners(training: "Training") -> list[Listener]:
    """Lines, validation, pictures, latent planes and pulls, as often as the settings say, and the copy elsewhere."""
    s = training.settings
    fidelity = None
    if s.monitor:
        from vaes.train.fidelity import Fidelity  # the metrics come with SciPy's statistics, a second of the start

        fidelity = Fidelity(s.monitor, s.monitor_features, s.monitor_perceptual)
    telling = any(term.has_critic or term.silence for term in training.state.objective.named_terms.values())
    pulls_every = s.eval_every * telling if s.pulls_freq is None else s.pulls_freq
    return [
        Lines(s.print_freq),
        Validation(s.eval_every, s.patience, fidelity),
        Pictures(s.sample_freq),
        Planes(),
        Pulls(pulls_every),
        *([] if s.mirror is None else [Mirror(s.mirror, copies=training.runtime.is_main)]),
    ]
