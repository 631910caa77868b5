"""What crosses the wire, and nothing else does.

| message    | field                  | why it may leave                                           |
|------------|------------------------|------------------------------------------------------------|
| Broadcast  | tensors                | the global model: the server's to give                     |
|            | class weights          | from class counts summed over the fleet, no one client's   |
| Update     | change                 | change of the model by local training                      |
|            | num_images, num_pixels | weight of the update; counts over all a client's samples   |
|            | num_steps, images_seen | cost of training                                           |
|            | loss                   | health of training, mean over a round                      |
| Evaluation | conf_CC per domain     | (truth, prediction) counts over all of a client's samples  |
| Enrolment  | counts, histogram      | how much a client holds of what, once per run              |
| Failure    | kind, reason           | why there is no update; texts name no file                 |

No pixels, label maps, file names or values of single images. How messages are written down is in
`wire`, what a reply must pass before it counts in `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fleetseg.federation.tensors import ModelState

FailureKind = Literal["late", "refused", "lost", "abstained"]


@dataclass(frozen=True)
class Enrolment:
    """What a client says of itself once: how much it holds, and of which classes."""

    client_id: str
    num_images: int
    num_pixels: int  # labelled pixels at working resolution
    histogram_C: tuple[int, ...]
    abstains: str = ""  # why it takes no part; empty = it does
    num_test_pixels: int = 0  # labelled pixels of its test samples, at their own resolution


def taking_part(enrolled: Mapping[str, Enrolment]) -> dict[str, Enrolment]:
    """Leave out the clients that abstain."""
    return {client: e for client, e in enrolled.items() if not e.abstains}


@dataclass(frozen=True)
class Broadcast:
    """The server's message to each client of a cohort."""

    round: int  # 1-based
    state: ModelState
    class_weights_C: tuple[float, ...] = ()  # empty = none from the fleet


@dataclass(frozen=True)
class Update:
    """A client's answer to a broadcast.

    `change`: of parameters and statistics against the broadcast, and counters as they stand.
    """

    round: int
    client_id: str
    change: ModelState
    num_images: int
    num_pixels: int
    num_steps: int
    images_seen: int
    loss: float
    wire_bytes: int = 0  # noted by the receiver: size of the message, 0 = the size of all messages


@dataclass(frozen=True)
class Evaluation:
    """A client's scores of a broadcast: one int64 confusion matrix per domain it holds."""

    round: int
    client_id: str
    conf_by_domain: Mapping[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Failure:
    """Why a client gave no usable answer."""

    client_id: str
    kind: FailureKind
    reason: str  # short stable code
    detail: str = ""
