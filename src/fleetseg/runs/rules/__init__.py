"""Rules that say when an option of an experiment has no effect, and why, by section."""

from __future__ import annotations

from fleetseg.runs.rules.data import DATA_RULES
from fleetseg.runs.rules.federation import FEDERATION_RULES
from fleetseg.runs.rules.rule import Facts, Rule
from fleetseg.runs.rules.scoring import SCORING_RULES
from fleetseg.runs.rules.training import TRAINING_RULES

__all__ = ["RULES", "Facts", "Rule"]

RULES: tuple[Rule, ...] = (*DATA_RULES, *TRAINING_RULES, *FEDERATION_RULES, *SCORING_RULES)
