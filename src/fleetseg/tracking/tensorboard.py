"""TensorBoard: event files in the run folder, written and flushed round by round."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from PIL import Image

from fleetseg.data.sample import Image_HWC
from fleetseg.tracking.tracker import Tracked, Tracker


def open_tracker(tracked: Tracked) -> Tracker:
    """Start an event file; steps past `tracked.step` in older files, left by a crash, are void."""
    return _EventFile(tracked)


class _EventFile:
    def __init__(self, tracked: Tracked) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._events: Any = event_pb2
        self._summaries: Any = summary_pb2
        self.where = str(tracked.folder)
        stamp = f"{time.time_ns():019d}.{socket.gethostname()}.{os.getpid()}"
        # TensorBoard reads the files of a folder in the order of their names.
        path = tracked.folder / f"events.out.tfevents.{stamp}"
        self._writer = RecordWriter(open(path, "xb"))  # noqa: SIM115 - for as long as the run
        self._write(file_version="brain.Event:2")
        if tracked.step:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(step=tracked.step + 1, session_log=start)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        made = self._summaries.Summary
        summary = [made.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=made(value=summary))

    def image(self, step: int, name: str, image_HWC: Image_HWC) -> None:
        height, width, colours = image_HWC.shape
        encoded = io.BytesIO()
        Image.fromarray(image_HWC).save(encoded, "png")
        made = self._summaries.Summary
        picture = made.Image(
            height=height,
            width=width,
            colorspace=colours,
            encoded_image_string=encoded.getvalue(),
        )
        self._write(step=step, summary=made(value=[made.Value(tag=name, image=picture)]))

    def close(self) -> None:
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        event = self._events.Event(wall_time=time.time(), **fields)
        self._writer.write(event.SerializeToString())
        self._writer.flush()
