"""Synthetic frames generated per second on one core: `python benchmarks/synthetic.py`."""

from __future__ import annotations

import time

from fleetseg.data.synthetic.cities import CITIES
from fleetseg.data.synthetic.source import SIZE_HW, paint
from fleetseg.data.synthetic.weather import CONDITIONS

FRAMES = 8


def main() -> None:
    paint(0, "train", "amber", "day", 0)  # builds the noise tiles
    total_s = 0.0
    for condition in CONDITIONS:
        # CPU time, so that other programs on a shared machine do not count.
        start_s = time.process_time()
        for city in CITIES:
            for frame in range(FRAMES):
                paint(1, "train", city, condition, frame)
        spent_s = time.process_time() - start_s
        total_s += spent_s
        print(f"{condition:<8}{FRAMES * len(CITIES) / spent_s:8.1f} frames/s")
    count = FRAMES * len(CITIES) * len(CONDITIONS)
    height, width = SIZE_HW
    size = f"{count} frames of {width}x{height}, one core, CPU time"
    print(f"{'all':<8}{count / total_s:8.1f} frames/s ({size})")


if __name__ == "__main__":
    main()
