"""Model cards: what config.json says, in words; less where less is known."""

from __future__ import annotations

from typing import Any

from fleetseg.models.card import card_text

CONFIG: dict[str, Any] = {
    "model": "fast_scnn",
    "num_classes": 2,
    "label_space": {"name": "two", "classes": ["dark", "bright"], "critical": ["bright"]},
    "input": {"size_hw": [48, 64]},
}
RECORD: dict[str, Any] = {
    "scores": {
        "miou": 0.5, "critical_miou": None, "iou": {"dark": 0.75, "bright": None},
        "convention": "mIoU (2 classes)",
    },
    "scored_round": 7,
    "by_domain": {"a|b": {"miou": 0.25, "critical_miou": 0.125}},
    "by_side": {},
    "by_client": {"car-1": {"miou": 0.3, "critical_miou": 0.2}},
    "by_client_on": "held-out frames",
    "protocol_lines": ["2 classes of two"],
    "weak_spots": ["It misses bright."],
    "training": {"method": "fedprox"},
    "data": ["trained on camvid, train"],
    "left_note": "No image.",
    "left": [["update", "change", "it is averaged"]],
}  # fmt: skip


def test_a_full_card_has_every_part() -> None:
    card = card_text({**CONFIG, "record": RECORD}, {"rounds": 7}, 1_140_000, "f" * 64)
    assert card.startswith("---\nlibrary_name: fleetseg\npipeline_tag: image-segmentation\n")
    for line in (
        "Network `fast_scnn` (1.14 M parameters), trained with fleetseg. It assigns each pixel",
        "2 classes of two.",
        "Scores of the model after round 7.",
        "| all images | 0.500 | – |",
        "| a\\|b | 0.250 | 0.125 |",
        "| bright (critical) | – |",
        "On vehicles' own held-out frames:",
        "| car-1 | 0.300 | 0.200 |",
        "- It misses bright.",
        "- method: fedprox",
        "- trained on camvid, train",
        "| update | change | it is averaged |",
        "## Licence",
        "- rounds: 7",
        f"- SHA-256 of model.safetensors: {'f' * 64}",
    ):
        assert line in card.splitlines()


def test_without_a_record_nothing_is_claimed() -> None:
    card = card_text(CONFIG, {}, 10, "0")
    assert "None: its run did not score it" in card
    assert "What left the vehicles" not in card
    assert "Not fit for steering a vehicle" in card
    assert 'load_model("this/folder")' in card
    assert "net=your_network" in card_text({**CONFIG, "model": "mine"}, {}, 10, "0")
