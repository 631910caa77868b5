"""What is said of predictions that were written, and the exit code that goes with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetseg.console import predict
from fleetseg.console.predict import predict_and_show
from fleetseg.runs.predicted_files import PredictedFiles
from fleetseg.runs.prediction_jobs import Request, Wanted

OUT = Path("seen")
ALL = Wanted(overlays=True, certain=("confidence",))


@pytest.mark.parametrize(
    ("done", "request_", "code", "told"),
    [
        (PredictedFiles(8, 0, (), 4.0), Request([], OUT), 0, "8 label maps in seen (2 images/s)\n"),
        (
            PredictedFiles(1, 0, (), 0.5),
            Request([], OUT, ALL),
            0,
            "1 label map, each with its overlay and confidence map, in seen (2 images/s)\n",
        ),
        (
            PredictedFiles(8, 1, ("x: broken",), 4.0),
            Request([], OUT, ALL),
            1,
            "bad image skipped: x: broken\n"
            "8 label maps, each with its confidence map, and 1 overlay video in seen "
            "(2 images/s)\n",
        ),
        (
            PredictedFiles(8, 0, (), 4.0, interrupted=True),
            Request([], OUT),
            130,
            "interrupted; what was predicted is written\n8 label maps in seen (2 images/s)\n",
        ),
        (PredictedFiles(0, 0, (), 4.0, interrupted=True), Request([], OUT, camera=0), 0, None),
        (PredictedFiles(0, 0, ("x",) * 12, 4.0), Request([], OUT), 1, None),
    ],
)
def test_the_last_line_and_the_exit_code(
    done: PredictedFiles,
    request_: Request,
    code: int,
    told: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(predict, "predict_files", lambda *args, **options: done)
    assert predict_and_show(Path("model"), request_) == code
    said = capsys.readouterr().out
    assert told is None or said == told
    if len(done.bad) > 10:
        assert "and 2 more bad images\n0 label maps in seen\n" in said
