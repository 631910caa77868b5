"""Shell completion: it is installed for a shell, and then knows commands and options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def in_bash(*words: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run fleetseg as a child of bash, which is how the shell is told."""
    bash = "/bin/bash"
    if not Path(bash).exists():
        pytest.skip("no bash on this machine")
    environment = {**os.environ, "HOME": str(home), "SHELL": bash, **variables}
    program = f'"{sys.executable}" -c "import sys; sys.argv[0] = \'fleetseg\'; '
    program += f'from fleetseg.cli import main; main()" {" ".join(words)}; exit $?'
    return subprocess.run([bash, "-c", program], env=environment, capture_output=True, text=True)


def test_it_is_shown_and_installed_for_bash(tmp_path: Path) -> None:
    shown = in_bash("--show-completion", home=tmp_path)
    assert "complete -o default -F _fleetseg_completion fleetseg" in shown.stdout, shown.stderr
    installed = in_bash("--install-completion", home=tmp_path)
    assert installed.returncode == 0, installed.stderr
    assert "fleetseg" in (tmp_path / ".bashrc").read_text()
    assert any("_fleetseg_completion" in p.read_text() for p in tmp_path.rglob("*.sh"))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("fleetseg ini", {"init"}),
        ("fleetseg data s", {"synth"}),
        ("fleetseg run --dry", {"--dry-run"}),
        ("fleetseg run --engine w", {"workers"}),
    ],
)
def test_it_knows_commands_and_options(typed: str, expected: set[str], tmp_path: Path) -> None:
    variables = {
        "_FLEETSEG_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    told = in_bash(home=tmp_path, **variables)
    assert set(told.stdout.split()) == expected, told.stderr
