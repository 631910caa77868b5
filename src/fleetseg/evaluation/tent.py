"""TENT: gains and biases of norm layers learn to reduce the entropy of predictions on test images.

Wang, Shelhamer, Liu, Olshausen, Darrell 2021, Tent: Fully Test-Time Adaptation by Entropy
Minimization, ICLR, openreview.net/forum?id=uXl3bZLkr3c. Batch norms use the statistics of the
batch; their gains and biases take steps that lower the mean entropy of the predictions over all
pixels of the batch. Deviations from the authors' code:

- a batch is predicted after its own steps, in a separate pass; theirs returns the predictions of
  the last pass before the last step, so that only later batches benefit from that step;
- several steps use the same images; in the first published code, later steps used predictions;
- dropout is off, and layers used only in training see nothing; theirs are in training mode;
- the entropy is computed at the network's own resolution and in float32.
"""

from __future__ import annotations

from torch import Tensor

from fleetseg.config import TentConfig
from fleetseg.evaluation.adaptation import (
    Passes,
    affine_parameters,
    copied,
    optimiser_of,
    require_affine,
    step,
)
from fleetseg.evaluation.predict import Images_NHWC


def mean_entropy(logits_NCHW: Tensor) -> Tensor:
    """Return the mean entropy of the predictions of all pixels, in nats: -sum p log p."""
    logs_NCHW = logits_NCHW.log_softmax(dim=1)
    return -(logs_NCHW.exp() * logs_NCHW).sum(dim=1).mean()


class Tent:
    """Learns gains and biases of batch norms batch by batch; see Reader.

    Raises:
        ConfigError: the model has none.
    """

    def __init__(self, passes: Passes, settings: TentConfig) -> None:
        require_affine(passes.model)
        self._passes, self._settings = passes, settings
        self._restart()

    def _restart(self) -> None:
        self.values = copied(affine_parameters(self._passes.model))
        self._optimiser = optimiser_of(self.values, self._settings)

    def begin_domain(self, name: str) -> None:
        """Restart from the model, except in mode "continual"."""
        if self._settings.mode != "continual":
            self._restart()

    def __call__(self, images_NHWC: Images_NHWC) -> Tensor:
        """Learn from a batch, and return its logits (N, C, h, w)."""
        if self._settings.mode == "episodic":
            self._restart()
        for _ in range(self._settings.steps):
            with self._passes.learning():
                entropy = mean_entropy(self._passes.learned(self.values, images_NHWC))
                step(self._optimiser, self.values, entropy)
        return self._passes.scored(self.values, images_NHWC)
