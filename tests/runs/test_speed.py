"""Speed is measured by real training steps."""

from __future__ import annotations

from fleetseg.runs.speed import measure_speed


def test_some_images_are_trained_in_no_time() -> None:
    speed = measure_speed((32, 64), batch_size=2, seconds=0.0001)
    assert speed.images_per_s > 0
    assert speed.precision in ("fp32", "bf16", "fp16")
    assert speed.device in ("cpu", "cuda", "mps")
