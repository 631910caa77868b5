"""The model card: the config of a saved model in plain language.

A card is a function of config.json alone, so it can be written again wherever a folder goes. A
*record*, config["record"], is what a run adds (`runs.model_record`), plain JSON values:

    scores        as written by `Scores.to_dict`, without the matrix; {} = not scored
    by_domain     domain -> mIoU and critical mIoU; by_client the same for vehicles' own frames
    by_side       "seen", "unseen" -> the same
    protocol      as written by `Protocol.to_dict`; protocol_lines states it in words
    data          the training data, one line per set
    training      facts about the run by name
    left          what left the vehicles: a (message, what, why) for each
    left_note     a sentence before that table
    weak_spots    one sentence each
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetseg.models.build import is_known

_NOTHING = "–"


def card_text(
    config: Mapping[str, Any], details: Mapping[str, Any], parameters: int, sha256: str
) -> str:
    """Return the card of a model folder: Markdown below the header that Hugging Face reads.

    Args:
        config: the content of config.json.
        details: facts about the training, and others about the folder.
        parameters: number of learnt values.
        sha256: digest of the weights.
    """
    record = config.get("record", {})
    parts = [
        _head(),
        _introduction(config, parameters),
        _use(config),
        _scores(config, record),
        _weak_spots(record),
        _training(record),
        _left(record),
        _LICENCE,
        _facts(details, sha256),
    ]
    return "\n".join(part for part in parts if part)


def _head() -> str:
    return """---
library_name: fleetseg
pipeline_tag: image-segmentation
license: other
tags:
- federated-learning
- semantic-segmentation
- autonomous-driving
---
"""


def _introduction(config: Mapping[str, Any], parameters: int) -> str:
    space, (height, width) = config["label_space"], config["input"]["size_hw"]
    return f"""# A road-scene segmentation model

Network `{config["model"]}` ({parameters / 1e6:.2f} M parameters), trained with fleetseg. It assigns each pixel
of a road scene to one of {config["num_classes"]} classes ({space["name"]}): {", ".join(space["classes"])}.

Input: RGB images with values in [0, 1]; trained at {height} x {width} pixels (height x width). The
model normalises and pads them itself.
"""  # noqa: E501


def _use(config: Mapping[str, Any]) -> str:
    return f"""## Use

```python
import fleetseg, torch
model = fleetseg.load_model("this/folder"{_own_net(config)})
logits = model(images)  # (N, 3, H, W) -> (N, {config["num_classes"]}, h, w)
logits = torch.nn.functional.interpolate(logits, images.shape[2:], mode="bilinear")
classes = logits.argmax(dim=1)  # model.space.classes names them
```

From the command line, for files: `fleetseg predict this/folder IMAGES --out predictions`.
"""


def _own_net(config: Mapping[str, Any]) -> str:
    return "" if is_known(str(config["model"])) else ", net=your_network"


def _scores(config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    scores = record.get("scores", {})
    if not scores:
        return "## Scores\n\nNone: its run did not score it on labelled images.\n"
    critical, sides = config["label_space"]["critical"], record.get("by_side", {})
    of = record.get("scored_round")
    lines = [
        "## Scores",
        "",
        *([] if of is None else [f"Scores of the model after round {of}."]),
        *(f"{line}." for line in record.get("protocol_lines", ())),
        "",
    ]
    lines += _table(
        ("", "mIoU", "critical mIoU"),
        [("all images", *_pair(scores)), *_named(record.get("by_domain", {}))]
        + [
            (f"domains {side} in training", *_pair(s))
            for side, s in (sides.items() if len(sides) > 1 else ())
        ],
    )
    lines += _table(
        ("class", "IoU"),
        [
            (f"{name} (critical)" if name in critical else name, _figure(iou))
            for name, iou in scores["iou"].items()
        ],
    )
    if by_client := record.get("by_client", {}):
        lines += [f"On vehicles' own {record.get('by_client_on', 'frames')}:", ""]
        lines += _table(("vehicle", "mIoU", "critical mIoU"), _named(by_client))
    lines += [f"{scores['convention']}.", ""]
    return "\n".join(lines)


def _weak_spots(record: Mapping[str, Any]) -> str:
    always = (
        "Not fit for steering a vehicle: it knows only scenes like those it was trained on, and "
        "gives no sign when it does not know."
    )
    spots = [f"- {spot}" for spot in (*record.get("weak_spots", ()), always)]
    return "\n".join(["## Known weak spots", "", *spots, ""])


def _training(record: Mapping[str, Any]) -> str:
    if "training" not in record:
        return ""
    rows = [f"- {name}: {value}" for name, value in record["training"].items()]
    data = [f"- {line}" for line in record.get("data", ())]
    return "\n".join(["## Training", "", *rows, "", "Data:", "", *data, ""])


def _left(record: Mapping[str, Any]) -> str:
    if "left_note" not in record:
        return ""
    lines = ["## What left the vehicles", "", record["left_note"], ""]
    if record.get("left"):
        lines += _table(("message", "what is in it", "why it may leave"), record["left"])
    return "\n".join(lines)


_LICENCE = """## Licence

Whoever trained this model decides the terms of its use; this file states none. The terms of the
images (and of a pretrained network, if training began with one) may also apply to what was learnt
from them: many road-scene data sets are for research only.
"""


def _facts(details: Mapping[str, Any], sha256: str) -> str:
    facts = "".join(f"- {key}: {value}\n" for key, value in details.items())
    return f"## Facts\n\n{facts}- SHA-256 of model.safetensors: {sha256}\n"


def _named(figures: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [(name, *_pair(scores)) for name, scores in figures.items()]


def _pair(scores: Mapping[str, Any]) -> tuple[str, str]:
    return _figure(scores["miou"]), _figure(scores["critical_miou"])


def _figure(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format a Markdown table, escaping bars in its texts."""
    lines = [tuple(head), tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines] + [
        ""
    ]
