"""What both ends of the NVFlare job say to each other, beside NVFlare's own messages.

A vehicle's part of a job is the cell `NAME.JOB`. What it speaks, all of it over its own connection:

1. NVFlare: it registers, gives heartbeats, answers the commands that start a job, syncs with the
   server's part (`SYNC_RUNNER`), asks for tasks (`GET_TASK`), asks whether an answer is still
   wanted (`TASK_CHECK`) and sends it (`SUBMIT_UPDATE`). A task is named `TASK`; task and answer are
   a Shareable with `HEADER`, JSON text, and `PAYLOAD`, bytes (`fleet.protocol`).
2. Topic `BEAT` of the channel for auxiliary messages, to the server's part, without a reply: a sign
   of life. `TASK` is the name of the task it is at work on (the field "task" of that task's
   header), empty where it is idle; `PROGRESS` is any text that changes as work goes on; `HEARS` is
   true where it hears the bell. It is sent at the start, when a task begins and when its answer has
   been sent, when the bell rings, and otherwise each `BEAT_S` seconds of the task's header, or,
   where idle, of `IDLE_BEAT_S` in the job's settings of vehicles.
3. Topic `BELL` of the same channel, from the server's part, without a reply: there is a task. Who
   hears it asks at once, and by itself only each `HEART_S` seconds of the job's settings, once it
   has had its first task (until then, and where there is no such setting, as often as the answers
   of the server say).

A vehicle that knows nothing of bells polls, and beats once a second: it is served all the same.
"""

from __future__ import annotations

from nvflare.apis.fl_constant import ReturnCode

TASK = "fleetseg"  # the name of every task
BEAT = "fleetseg.beat"  # topic of signs of life
BELL = "fleetseg.bell"  # topic of rings
PROGRESS = "progress"  # in a sign of life: how far the trainer has got
HEARS = "hears"  # in a sign of life: whether it hears the bell
HEADER, PAYLOAD = "header", "payload"  # keys of a message: JSON text, bytes
BEAT_S = "beat_s"  # in a task's header: seconds between two signs of life while at work on it
HEART_S, IDLE_BEAT_S = "fleetseg_heart_s", "fleetseg_idle_beat_s"  # in a job's settings of vehicles
LINK_VARIABLE = "FLEETSEG_LINK"  # socket of the aggregating process, on the server
TRAINER_VARIABLE = "FLEETSEG_TRAINER"  # socket of the trainer, on a vehicle
OWN_VARIABLE = "FLEETSEG_OWN"  # folder of a vehicle's own, with the list of what leaves it
OK = ReturnCode.OK
