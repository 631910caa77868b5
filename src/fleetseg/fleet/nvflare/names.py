"""Names that both ends of the NVFlare job agree on."""

from __future__ import annotations

from nvflare.apis.fl_constant import ReturnCode

TASK = "fleetseg"  # the name of every task
BEAT = "fleetseg.beat"  # topic of signs of life
PROGRESS = "progress"  # in a sign of life: how far the trainer has got
HEADER, PAYLOAD = "header", "payload"  # keys of a message: JSON text, bytes
LINK_VARIABLE = "FLEETSEG_LINK"  # socket of the aggregating process, on the server
TRAINER_VARIABLE = "FLEETSEG_TRAINER"  # socket of the trainer, on a vehicle
OWN_VARIABLE = "FLEETSEG_OWN"  # folder of a vehicle's own, with the list of what leaves it
OK = ReturnCode.OK
