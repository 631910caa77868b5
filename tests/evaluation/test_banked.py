"""Banks in use: each image with its own condition's statistics, whoever stands beside it."""

from __future__ import annotations

import copy

import numpy as np
import torch
from tests.evaluation.test_norms import C, net, scored

from fleetseg.data.sample import ScoredPairs
from fleetseg.evaluation.adaptation import Passes
from fleetseg.evaluation.banked import Banked
from fleetseg.evaluation.norms import Norms, score_by_domain
from fleetseg.evaluation.predict import evaluating
from fleetseg.models.conditions import fit_conditions, image_facts
from fleetseg.models.norm_banks import NormBanks
from fleetseg.models.norm_statistics import put_statistics

BRIGHT, DARK = (np.full((2, 12, 16, 3), value, np.uint8) for value in (230, 20))


def banks() -> NormBanks:
    """Bright images' bank has means 0 and variances 1, dark ones' 1 and 4."""
    facts = {name: [image_facts(i) for i in x] for name, x in (("day", BRIGHT), ("night", DARK))}
    channels = {"1": 6, "4": C}
    day = {layer: (torch.zeros(n), torch.ones(n)) for layer, n in channels.items()}
    night = {layer: (torch.ones(n), 4 * torch.ones(n)) for layer, n in channels.items()}
    statistics = {"day": day, "night": night}
    return NormBanks(fit_conditions(facts), statistics, {"day": 2, "night": 2}, "by hand")


def test_each_image_takes_its_own_bank_whoever_is_in_the_batch() -> None:
    model, given, chosen = net(), banks(), []
    images = np.stack([DARK[0], BRIGHT[0], DARK[0], BRIGHT[0]])
    images[2, :3] += 5
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with evaluating(model):
        passes = Passes(model, C, on_choice=lambda domain, name: chosen.append((domain, name)))
        reader = Banked(passes, given)
        reader.begin_domain("a")
        found = reader(images)
        alone = [reader(image[None]) for image in images]
    names = ["night", "day", "night", "day"]
    assert chosen == [("a", name) for name in names] * 2
    for index, name in enumerate(names):
        lent = copy.deepcopy(model).eval()
        put_statistics(lent, dict(given.statistics[name]))
        with torch.no_grad():
            wanted = lent(torch.from_numpy(images[index : index + 1]).movedim(3, 1) / 255)
        torch.testing.assert_close(found[index : index + 1], wanted)
        torch.testing.assert_close(alone[index], wanted)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_labels_are_never_looked_at() -> None:
    """Neither those of pixels nor what a data set calls a frame's domain."""
    model, norms, given = net(), Norms("banks", 3, banks=banks()), scored()
    poisoned = [(image, np.full_like(label, 255)) for image, label in given.pairs]
    chosen: dict[str, list[str]] = {}
    for name, pairs, domains in (
        ("true", given.pairs, ("d",) * 7), ("poisoned", poisoned, ("d",) * 7),
    ):  # fmt: skip
        noted = chosen.setdefault(name, [])
        score_by_domain(
            model,
            ScoredPairs(pairs, domains),
            norms,
            num_classes=C,
            on_choice=lambda domain, bank, noted=noted: noted.append(bank),  # type: ignore[misc]
        )
    assert chosen["true"] == chosen["poisoned"]
    assert set(chosen["true"]) == {"day", "night"}
    renamed = ScoredPairs(given.pairs, ("night",) * 7)
    both = [
        score_by_domain(model, one, norms, num_classes=C)
        for one in (renamed, ScoredPairs(given.pairs, ("day",) * 7))
    ]
    assert both[0]["night"].tolist() == both[1]["day"].tolist()
