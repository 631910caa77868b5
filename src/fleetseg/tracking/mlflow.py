"""MLflow: a run in an experiment; its destination is MLflow's own setting (MLFLOW_TRACKING_URI)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from fleetseg.data.sample import Image_HWC
from fleetseg.experiment_file import dotted
from fleetseg.tracking.tracker import Tracked, Tracker

_RUN = "fleetseg.run"  # the tag that identifies a run
_BATCH = 100  # parameters or metrics per request, the most that MLflow allows
_LONGEST = 500  # characters of a parameter's value
_STEPS = "seconds"  # a metric that every step has


def open_tracker(tracked: Tracked) -> Tracker:
    """Start a run, or continue the one with that tag; steps that it has are not sent again."""
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name(tracked.project)
    known = experiment.experiment_id if experiment else client.create_experiment(tracked.project)
    found = client.search_runs([known], filter_string=f"tags.`{_RUN}` = '{tracked.run}'")
    if found:
        run = found[0].info.run_id
        client.update_run(run, status="RUNNING")
        has = max((m.step for m in client.get_metric_history(run, _STEPS)), default=0)
        return _MlflowRun(client, run, Metric, has)
    tags = {_RUN: tracked.run, "fleetseg.group": tracked.group}
    run = client.create_run(known, tags=tags, run_name=tracked.name).info.run_id
    told = dotted(tracked.settings)
    params = [Param(key, str(value)[:_LONGEST]) for key, value in told.items()]
    for begin in range(0, len(params), _BATCH):
        client.log_batch(run, params=params[begin : begin + _BATCH])
    return _MlflowRun(client, run, Metric, 0)


class _MlflowRun:
    def __init__(self, client: Any, run: str, metric: Any, has: int) -> None:
        self._client, self._run, self._metric, self._has = client, run, metric, has
        self.where = f"run {run}"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if step <= self._has:
            return
        now_ms = time.time_ns() // 10**6
        metrics = [self._metric(_key(k), value, now_ms, step) for k, value in values.items()]
        # The metric that marks a step as complete comes last.
        metrics.sort(key=lambda metric: metric.key == _STEPS)
        for begin in range(0, len(metrics), _BATCH):
            self._client.log_batch(self._run, metrics=metrics[begin : begin + _BATCH])

    def image(self, step: int, name: str, image_HWC: Image_HWC) -> None:
        if step > self._has:
            self._client.log_image(self._run, image_HWC, key=_key(name), step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _key(name: str) -> str:
    """Replace characters that MLflow does not accept in a name by their code points.

    >>> _key("iou/sign symbol"), _key("iou/Fußweg")
    ('iou/sign symbol', 'iou/Fu_df_weg')
    """
    return re.sub(r"[^A-Za-z0-9_\-. :/]", lambda found: f"_{ord(found[0]):x}_", name)
