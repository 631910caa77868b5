"""All messages between server and clients; nothing else crosses the wire.

| message    | field                  | why it may leave                                           |
|------------|------------------------|------------------------------------------------------------|
| Broadcast  | tensors                | the global model, or those of clusters: the server's to    |
|            |                        | give                                                       |
|            | facts                  | computed from all clients' reports, not one client's; but  |
|            |                        | styles are single clients', with numbers instead of names  |
|            | lineage                | digest of the history of rounds that the model comes from  |
|            | counted                | the client's last update that counted: its round, and the  |
|            |                        | lineage at the start of that round                         |
|            | references             | among the tensors, models of earlier rounds: the server's  |
|            | changes                | tensors, as changes since an earlier broadcast             |
| Update     | change                 | change of the model, and of a method's extras, by training |
|            | features               | in `change`: mean and deviation of channels of features,   |
|            |                        | over all of a client's batches in the round                |
|            | num_images, num_pixels | weight of the update; counts over all a client's samples   |
|            | num_steps, images_seen | cost of training                                           |
|            | loss                   | health of training, mean over a round                      |
|            | measures               | what a method needs from each update: numbers over all of  |
|            |                        | a client's samples, each in `measures.MEASURES`            |
| Evaluation | conf_CC per domain     | (truth, prediction) counts over all of a client's samples  |
| NormReport | counts, sums, squares  | of each channel of norm layers over all training images    |
| Enrolment  | counts, histogram      | how much a client holds of each class, once per run        |
|            | facts                  | what a method needs from all of a client's samples at      |
|            |                        | once: each with its reason in `fleet_facts.FLEET_FACTS`    |
| Judgement  | frames, sums of counts | of a model that is judged: see `judging.sums`              |
| Drives     | release, digest        | which release a vehicle drives: the operator's own words   |
| Failure    | kind, reason           | why there is no update; texts name no file                 |

No pixels, label maps, file names or values of single images are sent, except the style of each
image if an experiment asks for it (`training.style.per = "image"`). `wire` encodes messages;
`checks` has the checks that a reply must pass before it counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fleetseg.errors import UpdateRejected
from fleetseg.failures import MAX_DETAIL, FailureKind
from fleetseg.federation.tensors import ModelState
from fleetseg.learning.inputs import Facts
from fleetseg.models.norm_statistics import NormSums
from fleetseg.text import plain

META_BYTES = 8192
"""A message's header is padded to a multiple of this, so that one model has one message size."""
_HEADER_BYTES = 163  # size of a broadcast's header without round, facts and padding


@dataclass(frozen=True)
class Enrolment:
    """What a client reports about itself once: how much it holds, and of which classes."""

    client_id: str
    num_images: int
    num_pixels: int  # labelled pixels at working resolution
    histogram_C: tuple[int, ...]
    abstains: str = ""  # why it takes no part; empty if it does
    num_test_pixels: int = 0  # labelled pixels of its test samples, at their own resolution
    facts: Facts = field(default_factory=dict)


def taking_part(enrolled: Mapping[str, Enrolment]) -> dict[str, Enrolment]:
    """Leave out the clients that abstain."""
    return {client: e for client, e in enrolled.items() if not e.abstains}


@dataclass(frozen=True)
class Changes:
    """A broadcast's model as changes since one that its client holds: see `downlink`."""

    base: int  # the round whose broadcast the client holds
    messages: tuple[bytes, ...]  # the change of each round since then, oldest first
    digest: str  # of the resulting model

    @property
    def num_bytes(self) -> int:
        """Size of all messages."""
        return sum(map(len, self.messages))


@dataclass(frozen=True)
class Counted:
    """A client's update that counted, by its round and the lineage that it was trained from."""

    round: int  # 0 = no update has counted
    lineage: str = ""


@dataclass(frozen=True)
class Broadcast:
    """The server's message to a client; clients may receive different ones.

    `state` has the layout of what is sent: see `sharing.Exchange.down`.
    """

    round: int  # 1-based; of an evaluation, the round after which the model is scored
    state: ModelState
    facts: Facts = field(default_factory=dict)
    counted: Counted | None = None  # the client's last update that counted; None = its newest
    changes: Changes | None = None  # another way to send `state`; None = whole
    lineage: str = ""  # the history of rounds that the model comes from: see `lineage`

    def num_bytes(self, whole: int) -> int:
        """Return the size of the message; `whole` is that of a whole model without facts."""
        facts = _fact_bytes(self.facts, self.round)
        return facts + (whole if self.changes is None else self.changes.num_bytes)


def _fact_bytes(facts: Facts, round_: int) -> int:
    """Return the bytes that facts add: whole blocks, if they do not fit into the padding."""
    if 25 * sum(fact.size for fact in facts.values()) < META_BYTES // 2:  # the usual case
        return 0
    text = json.dumps({name: fact.tolist() for name, fact in facts.items()})
    quotes = 2 * len(facts)  # each is escaped in the enclosing JSON
    header = _HEADER_BYTES + len(str(round_)) + len(text) + quotes
    return (header - 1) // META_BYTES * META_BYTES


@dataclass(frozen=True)
class Update:
    """A client's answer to a broadcast.

    `change` holds the differences of parameters and statistics from the broadcast, and counters as
    they stand.
    """

    round: int
    client_id: str
    change: ModelState
    num_images: int
    num_pixels: int
    num_steps: int
    images_seen: int
    loss: float
    measures: Mapping[str, float] = field(default_factory=dict)  # see `measures`


@dataclass(frozen=True)
class Packed:
    """An update as encoded by a codec, on its way to the server."""

    round: int
    client_id: str
    data: bytes


@dataclass(frozen=True)
class Evaluation:
    """A client's scores of a broadcast: one int64 confusion matrix per domain it holds."""

    round: int
    client_id: str
    conf_by_domain: Mapping[str, npt.NDArray[np.int64]]

    @property
    def num_bytes(self) -> int:
        """Size of the message."""
        return sum(conf_CC.nbytes for conf_CC in self.conf_by_domain.values())


@dataclass(frozen=True)
class NormReport:
    """Sums over the inputs of a broadcast model's batch norms, for all of a client's images."""

    round: int
    client_id: str
    sums: NormSums

    @property
    def num_bytes(self) -> int:
        """Size of the message."""
        return sum(values.nbytes for values in vars(self.sums).values())


@dataclass(frozen=True)
class Failure:
    """Why a client gave no usable reply."""

    client_id: str
    kind: FailureKind
    reason: str  # short stable code
    detail: str = ""

    @classmethod
    def refused(cls, client_id: str, rejected: UpdateRejected) -> Failure:
        """Make the failure for a reply that did not pass a check."""
        # Shortened and sanitised, because the text quotes what the client sent.
        return cls(client_id, "refused", rejected.reason, plain(rejected, MAX_DETAIL))


Reply = Update | Packed | Evaluation | NormReport | Failure
"""The result of a client's work; the server receives an update unpacked."""
