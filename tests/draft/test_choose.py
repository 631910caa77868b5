"""What is chosen for a data set and a machine, on facts that are made up."""

from __future__ import annotations

from typing import Any

import pytest

from fleetseg.data.labels import CAMVID_11
from fleetseg.draft.choose import Machine, choose, fitting_size
from fleetseg.draft.look import Found, Part

CPU, GPU = Machine(2, "cpu", has_pretrained=False), Machine(8, "cuda", has_pretrained=True)


def found(
    images: int, *, scored: bool = True, size_hw: tuple[int, int] = (200, 300), **facts: int
) -> Found:
    train = Part("train", images, images, frozenset())
    known = {"sequence": 0, "city": 0, "vehicle": 0, **facts}
    val = Part("val", 5, 5, frozenset()) if scored else None
    rest: dict[str, Any] = {"kind": "camvid", "root": "r", "name": "n", "space": CAMVID_11}
    return Found(
        parts=(train,), train=train, scored=val, facts=known, size_hw=size_hw, num_sizes=1, **rest
    )


@pytest.mark.parametrize(
    ("images", "facts", "expected"),
    [
        (367, {"sequence": 3}, ("natural", "sequence", 3, True)),
        (367, {"sequence": 1}, ("natural", "sequence", 16, False)),  # cut in pieces
        (100, {"sequence": 40, "city": 4}, ("natural", "city", 4, True)),
        (100, {"sequence": 40}, ("natural", "sequence", 5, False)),  # put together
        (100, {"vehicle": 5, "city": 9, "sequence": 40}, ("natural", "vehicle", 5, True)),
        (80, {}, ("iid", "", 4, False)),
        (3, {}, ("iid", "", 1, False)),
    ],
)
def test_vehicles(images: int, facts: dict[str, int], expected: tuple[str, str, int, bool]) -> None:
    choice = choose(found(images, **facts), CPU)
    assert (choice.kind, choice.by, choice.clients, choice.as_they_are) == expected


def test_frames_are_held_out_only_where_nothing_else_is_scored() -> None:
    assert choose(found(40), CPU).holdout == 0
    assert choose(found(40, scored=False), CPU).holdout == 0.2
    assert choose(found(1, scored=False), CPU).holdout == 0


def test_a_machine_decides_on_size_crop_and_network() -> None:
    large = found(400, size_hw=(1024, 2048), sequence=4)
    on_cpu, on_gpu = choose(large, CPU), choose(large, GPU)
    assert (on_cpu.size, on_cpu.crop, on_cpu.pretrained) == ((224, 448), None, False)
    assert (on_gpu.size, on_gpu.crop, on_gpu.pretrained) == ((512, 1024), (512, 512), True)


def test_rounds_are_about_500_steps_of_a_vehicle() -> None:
    assert choose(found(120, sequence=3), CPU).rounds == 50  # 40 images, 10 steps a round
    assert choose(found(12, sequence=3), CPU).rounds == 100
    assert choose(found(12_000, sequence=3), CPU).rounds == 20


def test_of_a_large_fleet_eight_are_asked() -> None:
    assert choose(found(400, sequence=16), CPU).cohort == 8
    assert choose(found(400, sequence=10), CPU).cohort == 0


def test_a_size_keeps_its_shape() -> None:
    for hw in ((360, 480), (1024, 2048), (720, 1280), (20, 50)):
        height, width = fitting_size(hw, 100_000)
        assert height * width <= 110_000
        assert width / height == pytest.approx(hw[1] / hw[0], rel=0.1)
