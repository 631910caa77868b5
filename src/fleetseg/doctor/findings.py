"""What a check of this machine finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    verdict: Verdict
    what: str
    detail: str
