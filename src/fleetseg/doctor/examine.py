"""All checks of this machine, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fleetseg.doctor import host, machine
from fleetseg.doctor.findings import Finding

Check = Callable[[], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    machine.versions,
    machine.processor,
    machine.memory,
    machine.graphics,
    machine.extras,
    host.open_files,
    host.shared_memory,
    host.user,
    host.variables,
    host.temporary,
    host.working_folder,
    host.output,
    machine.cache,
    machine.speed,
)


def examine() -> Iterator[Finding]:
    """Yield the findings of each check; a check that fails itself is a finding too."""
    for check in CHECKS:
        try:
            findings = list(check())
        except Exception as error:  # a broken package may raise anything
            what = check.__name__.replace("_", " ")
            findings = [Finding("fail", what, " ".join(f"{type(error).__name__}: {error}".split()))]
        yield from findings
