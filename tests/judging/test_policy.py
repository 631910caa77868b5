"""A policy file: strict keys, values with their limits, and an example that says the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetseg.errors import ConfigError
from fleetseg.judging.policy import Policy, load_policy, make_policy

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "release-policy.toml"


def test_the_example_says_every_default() -> None:
    assert load_policy(EXAMPLE) == Policy() == load_policy(None)
    written = EXAMPLE.read_text()
    for name, section in Policy():
        assert f"[{name}]" in written
        assert all(f"\n{key} = " in written for key in type(section).model_fields)


def test_digests_tell_policies_apart() -> None:
    assert Policy().digest == make_policy({}).digest
    assert Policy().digest != make_policy({"bootstrap": {"seed": 1}}).digest


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"scores": {"critical_max_fal": 0.1}},
            "mine.toml: unknown key 'scores.critical_max_fal'.*Did you mean 'critical_max_fall'",
        ),
        ({"robustnes": {}}, "unknown key 'robustnes'.*Did you mean 'robustness'"),
        ({"scores": {"domain_max_fall": 2}}, "scores.domain_max_fall: .*less than or equal to 1"),
        ({"scores": {"domain_max_fall": "0.1"}}, "scores.domain_max_fall: .*valid number"),
        ({"robustness": {"kinds": ["fogg"]}}, "unknown kind 'fogg'.*Did you mean 'fog'"),
        ({"bootstrap": {"when_unsure": "ask"}}, "bootstrap.when_unsure"),
        ({"bootstrap": {"confidence": 1.0}}, "bootstrap.confidence.*less than 1"),
    ],
)
def test_what_cannot_be_is_one_clear_error(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_policy(fields, "mine.toml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="policy file not found"):
        load_policy(tmp_path / "policy.toml")
