"""A client sums the inputs of the broadcast model's batch norms over its training images."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from fleetseg.evaluation.predict import evaluating, forward
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.messages import Broadcast, Failure, NormReport, Reply
from fleetseg.federation.statistics import STATISTICS
from fleetseg.learning.batches import batches_per_epoch
from fleetseg.models.norm_statistics import gather

_NOT_ESTIMATED = "the experiment does not estimate statistics, so none may leave"


def client_norm_statistics(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
    """Sum the inputs of the broadcast model's batch norms over all training images.

    Images are not augmented; they come in order, in batches of nearly equal size.
    """
    experiment, hardware, count = runtime.experiment, runtime.hardware, len(client.train)
    if not STATISTICS[experiment.federation.statistics].estimated:
        return Failure(client.id, "abstained", "unasked", _NOT_ESTIMATED)
    runtime.load(broadcast, {})
    num_batches = batches_per_epoch(count, experiment.training.batch_size)

    def look(part: npt.NDArray[np.intp]) -> None:
        images_NHWC = np.stack([client.train[int(i)][0] for i in part])
        forward(runtime.model, images_NHWC, device=hardware.device, context=hardware.inference)

    parts = np.array_split(np.arange(count), num_batches)
    with evaluating(runtime.model):
        sums = gather(runtime.model, [partial(look, part) for part in parts], lone=True)
    return NormReport(broadcast.round, client.id, sums)
