"""The protocol between both ends of the NVFlare job, besides NVFlare's own messages.

A vehicle's part of a job is the cell `NAME.JOB`. It speaks, all over its own connection:

1. NVFlare: it registers, sends heartbeats, answers the commands that start a job, syncs with the
   server's part (`SYNC_RUNNER`), requests tasks (`GET_TASK`), asks whether a reply is still wanted
   (`TASK_CHECK`) and sends it (`SUBMIT_UPDATE`). A task is named `TASK`; task and reply are a
   Shareable with `HEADER`, JSON text, and `PAYLOAD`, bytes (`fleet.protocol`).
2. Topic `BEAT` of the channel for auxiliary messages, to the server's part, without a reply: a
   heartbeat. `TASK` is the name of the task that it is working on (the field "task" of that task's
   header), empty if it is idle; `PROGRESS` is any text that changes as work goes on; `HEARS` is
   true if it supports notifications. It is sent at the start, when a task begins, when its reply
   has been sent, on a notification, and otherwise every `BEAT_S` seconds (from the task's header)
   or, if idle, every `IDLE_BEAT_S` seconds (from the job's vehicle settings).
3. Topic `BELL` of the same channel, from the server's part, without a reply: a notification that
   there is a task. A vehicle that supports it requests the task at once, and without a notification
   only every `HEART_S` seconds (from the job's settings), once it has had its first task. Until
   then, or without that setting, it polls as often as the server's replies say.

A vehicle that does not support notifications polls, and sends a heartbeat once a second; it is
served all the same.
"""

from __future__ import annotations

from nvflare.apis.fl_constant import ReturnCode

TASK = "fleetseg"  # the name of every task
BEAT = "fleetseg.beat"  # topic of heartbeats
BELL = "fleetseg.bell"  # topic of notifications
PROGRESS = "progress"  # in a heartbeat: the trainer's progress
HEARS = "hears"  # in a heartbeat: whether the vehicle supports notifications
HEADER, PAYLOAD = "header", "payload"  # keys of a message: JSON text, bytes
BEAT_S = "beat_s"  # in a task's header: heartbeat interval in seconds while working on it
HEART_S, IDLE_BEAT_S = "fleetseg_heart_s", "fleetseg_idle_beat_s"  # in a job's vehicle settings
LINK_VARIABLE = "FLEETSEG_LINK"  # socket of the aggregating process, on the server
TRAINER_VARIABLE = "FLEETSEG_TRAINER"  # socket of the trainer, on a vehicle
OWN_VARIABLE = "FLEETSEG_OWN"  # a vehicle's own folder, with the log of what leaves it
OK = ReturnCode.OK
