"""Training: one loop for all methods, its checkpoints and its records.

:func:`vaes.train.loop.fit` is not imported here, so that reading a configuration does not start Accelerate.
"""

from vaes.train.settings import Settings

__all__ = ["Settings"]
