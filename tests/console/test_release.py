"""What a person reads of a decision: the checks, the reasons, where the page lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetseg.console.release import decide_and_show
from fleetseg.release.gate import Decision, Question
from fleetseg.release.judge import Check

CHECKS = (
    Check("class", "pedestrian", "fallen", "it fell", 0.2, 0.3, -0.15, -0.05, 0.02, "9 images"),
    Check("latency", "ms per image", "held", "quick", 12.34, 11.0),
)


@pytest.mark.parametrize(("promoted", "code"), [(True, 0), (False, 3)])
def test_a_decision_in_a_terminal(
    promoted: bool,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    notes = tuple(f"note {number}" for number in range(15))
    decision = Decision(promoted, CHECKS, ("because",), notes, "release 0001", tmp_path, None)
    monkeypatch.setattr("fleetseg.console.release.decide", lambda *given: decision)
    question = Question(tmp_path, tmp_path / "models")
    assert decide_and_show(question, as_json=False) == code
    shown = capsys.readouterr().out
    row, other = (line.split() for line in shown.splitlines()[1:3])
    assert row == ["class", "pedestrian", "0.300", "0.200", "-0.100",
                   "-0.150", "to", "-0.050", "fallen"]  # fmt: skip
    assert other == ["latency", "ms", "per", "image", "11.0", "12.3", "+1.3", "–", "held"]
    assert f"{'promoted' if promoted else 'refused'}: because" in shown
    assert f"the page: {tmp_path / 'release.html'}" in shown
    assert "and 3 more notes" in shown
    assert ("dry run" in shown) == promoted
