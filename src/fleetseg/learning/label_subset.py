"""Loss of a client that labels only some classes: it compares those and "any other class".

The background cross-entropy of FedSeg (Miao et al., CVPR 2023). F are the classes that the client
labels, B all others. The probabilities of B are summed into one, q_back, and an erased pixel is an
example of it: it belongs to no class of F, and its class in B is unknown. Pixels that the data set
itself leaves void carry no information and are ignored.

In FedSeg's code, F are the classes labelled in a batch, so that an image without one of the
client's classes pushes that class into the background; here F are the client's classes. FedSeg also
adds 1e-7 to probabilities, which bounds its gradients; here everything is in log space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fleetseg.data.labels import ERASED, IGNORE

_STRAY = IGNORE - 1  # above any id: a pixel that is neither labelled, erased nor void


def with_back(logits_NCHW: Tensor, labelled: Sequence[int]) -> Tensor:
    """Return the logits of the labelled classes, and one logit for all other classes together.

    The softmax of the result, (N, F + 1, H, W), gives the labelled classes' own probabilities and
    the sum of the others'. If all classes are labelled, the logits are returned unchanged.
    """
    others = [c for c in range(logits_NCHW.shape[1]) if c not in labelled]
    if not others:
        return logits_NCHW
    wide_NCHW = logits_NCHW.to(torch.promote_types(logits_NCHW.dtype, torch.float32))
    back_N1HW = wide_NCHW[:, others].logsumexp(dim=1, keepdim=True)
    return torch.cat([wide_NCHW[:, list(labelled)], back_N1HW], dim=1)


def subset_table(labelled: Sequence[int]) -> Tensor:
    """Return the 256-entry table from label ids to channels of `with_back`."""
    table = torch.full((256,), _STRAY, dtype=torch.uint8)
    for channel, train_id in enumerate(labelled):
        table[train_id] = channel
    table[ERASED], table[IGNORE] = len(labelled), IGNORE
    return table


def subset_weights(weights_C: Tensor | None, labelled: Sequence[int]) -> Tensor | None:
    """Return class weights for `with_back`; all other classes together weigh 1, the mean weight."""
    if weights_C is None or len(labelled) == len(weights_C):
        return weights_C
    return torch.cat([weights_C[list(labelled)], weights_C.new_ones(1)])
