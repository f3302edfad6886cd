"""Keeps an eye on one player: holds the process that is known, looks for the one that is not.

When to look, and what was seen. What follows from it is for core.recovery.
"""

import selectors
from collections.abc import Iterable

from infoscreen_device.core.model import Expectation, ProcessKey
from infoscreen_device.core.phases import Phase, State
from infoscreen_device.probes import process as probe

POLL_S = 2.0
"""How often a living player is asked whether it was stopped: for that there is no event."""
FAMILY_YOUNG_S, FAMILY_S = 30.0, 10.0
"""Descendants are looked at with every poll while the player is this young, and every FAMILY_S later on."""
SEARCH_SOON_S, SEARCH_S, SEARCH_LATE_S, LATE_S = 0.02, 1.0, 5.0, 60.0
"""A player that was just started is looked for at growing intervals up to SEARCH_S, and after LATE_S less often."""


class Watch:
    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self.held: probe.Held | None = None
        self._held_since = 0.0
        self._family_at = 0.0
        self._stopped = False
        self._poll_at = 0.0
        self._search_at = 0.0
        self._search_began = 0.0
        self._replaced: tuple[ProcessKey, frozenset[int]] | None = None
        self.searched = False
        """The last look was a full search by name."""

    def see(
        self, state: State, now: float, candidate: ProcessKey | None, never: Iterable[int]
    ) -> tuple[ProcessKey | None, bool]:
        """The living player, if any, and whether it was stopped. `candidate` is looked at first."""
        self.searched = False
        if state.expectation is None:
            self.drop()
            return None, False
        if state.player is not None:
            if self.held is None or self.held.key != state.player:
                self._hold(state.player, now)
                if self.held is None:
                    # Remembered from an earlier run, which may have replaced it and died before that was on disk.
                    return self._search(state.expectation, now, candidate, never), False
            return self._look(now)
        if state.replaced is not None:
            never = {*never, *self._replaced_family(state.replaced)}
        self.drop()
        if state.phase is Phase.IDLE or now < self._search_at:
            return None, False
        return self._search(state.expectation, now, candidate, never), False

    def _replaced_family(self, key: ProcessKey) -> frozenset[int]:
        """A living player that is being replaced, with its children, which may have its name: none is found again."""
        if self._replaced is None or self._replaced[0] != key:
            family = probe.descendants(key.pid) | (self.held.family if self.held is not None else frozenset())
            self._replaced = (key, frozenset({key.pid, *(each.pid for each in family)}))
        return self._replaced[1]

    def search_soon(self, now: float) -> None:
        """Something was started or announced: look at once, and often for a while."""
        self._search_at = self._search_began = now

    def wake_at(self, state: State) -> float | None:
        if state.expectation is None:
            return None
        return self._poll_at if state.player is not None else self._search_at

    def let_go(self) -> probe.Held | None:
        """Watches no process any more. The caller may still use what is returned, and has to close it."""
        player, self.held = self.held, None
        if player is not None:
            self._selector.unregister(player.pidfd)
        return player

    def _hold(self, key: ProcessKey, now: float) -> None:
        self.drop()
        self.held = probe.held(key)
        if self.held is not None:
            self._selector.register(self.held.pidfd, selectors.EVENT_READ)
            self._held_since, self._stopped = now, probe.is_stopped(key)
            self._poll_at, self._family_at = now + POLL_S, now + POLL_S

    def drop(self) -> None:
        player = self.let_go()
        if player is not None:
            player.close()

    def _look(self, now: float) -> tuple[ProcessKey | None, bool]:
        if self.held is None or probe.has_ended(self.held.pidfd):
            return None, False
        if now >= self._poll_at:
            self._poll_at = now + POLL_S
            self._stopped = probe.is_stopped(self.held.key)
            if now >= self._family_at:
                self.held.refresh()
                young = now < self._held_since + FAMILY_YOUNG_S
                self._family_at = now + (POLL_S if young else FAMILY_S) - POLL_S / 2
        return self.held.key, self._stopped

    def _search(
        self, expectation: Expectation, now: float, candidate: ProcessKey | None, never: Iterable[int]
    ) -> ProcessKey | None:
        age = now - self._search_began
        wait = SEARCH_LATE_S if age > LATE_S else max(SEARCH_SOON_S, min(SEARCH_S, age / 2))
        self._search_at = now + wait
        found = candidate
        if found is None or not probe.lives(found) or not probe.matches(found.pid, expectation):
            self.searched = True
            found = probe.find(expectation, never)
        if found is None:
            return None
        # Held before it is told of: if it dies in between, its exit status is not lost.
        self._hold(found, now)
        return None if self.held is None else self.held.key
