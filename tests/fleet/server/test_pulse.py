"""A loop that hangs is told from one that waits, and from one at the server's own work."""

from __future__ import annotations

from fleetseg.fleet.server.pulse import WAITING_S, WORKING_S, Pulse


def test_a_loop_may_work_longer_than_it_may_wait_without_a_turn() -> None:
    now_s = [0.0]
    pulse = Pulse(lambda: now_s[0])
    pulse.waiting()
    now_s[0] = WAITING_S
    assert pulse.stalled_s() == 0
    now_s[0] = WAITING_S + 1
    assert pulse.stalled_s() == WAITING_S + 1
    pulse.working()
    now_s[0] += WORKING_S
    assert pulse.stalled_s() == 0
    now_s[0] += 1
    assert pulse.stalled_s() == WORKING_S + 1
    pulse.waiting()
    assert pulse.stalled_s() == 0
