"""What a client that labels some classes only can compare: those, and "any of the others".

The background cross-entropy of FedSeg (Miao et al., CVPR 2023). F are the classes that the client
labels and B all others. The probabilities of B are summed to one, q_back, and an erased pixel is an
example of it: it is none of F, and nobody says which of B. Pixels that the data set itself leaves
void say nothing and are ignored.

FedSeg's code takes for F what is labelled in a batch, so that an image without a class that the
client does label pushes that class into the background; here F is the client's. It also adds 1e-7
to probabilities, which bounds its gradients; here all is in log space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fleetseg.data.labels import ERASED, IGNORE

_STRAY = IGNORE - 1  # more than any id: what is neither labelled, erased nor void


def with_back(logits_NCHW: Tensor, labelled: Sequence[int]) -> Tensor:
    """Return logits of the classes that are labelled, and one of all others together.

    The softmax of what is returned, (N, F + 1, H, W), are the classes' own probabilities and the
    sum of the others'. With no others, the logits are returned as they are.
    """
    others = [c for c in range(logits_NCHW.shape[1]) if c not in labelled]
    if not others:
        return logits_NCHW
    wide_NCHW = logits_NCHW.to(torch.promote_types(logits_NCHW.dtype, torch.float32))
    back_N1HW = wide_NCHW[:, others].logsumexp(dim=1, keepdim=True)
    return torch.cat([wide_NCHW[:, list(labelled)], back_N1HW], dim=1)


def subset_table(labelled: Sequence[int]) -> Tensor:
    """Make the table of 256 entries that takes label ids to channels of `with_back`."""
    table = torch.full((256,), _STRAY, dtype=torch.uint8)
    for channel, train_id in enumerate(labelled):
        table[train_id] = channel
    table[ERASED], table[IGNORE] = len(labelled), IGNORE
    return table


def subset_weights(weights_C: Tensor | None, labelled: Sequence[int]) -> Tensor | None:
    """Return the class weights of what is compared; the others together weigh 1, as the mean."""
    if weights_C is None or len(labelled) == len(weights_C):
        return weights_C
    return torch.cat([weights_C[list(labelled)], weights_C.new_ones(1)])
