"""Silences and maintenance windows: of whom no word is sent, and when. Pure; all is recorded as ever.

A recurring one is worked out from its table whenever it is asked for; no occurrence is ever written down. Nothing but
its end, or a person, ends a silence.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from infoscreen_server.alerts.hours import Hours


class Scope(StrEnum):
    ALL = "all"
    CLIENT = "client"
    SITE = "site"
    TAG = "tag"


@dataclass(frozen=True, slots=True)
class Place:
    """What a silence looks at: whom an alert is about. The alert about the whole fleet has no client."""

    client: str | None = None
    site: str | None = None
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Silence:
    scope: Scope
    target: str
    """uuid, site or tag; empty for all."""
    starts_at: datetime
    ends_at: datetime | None
    """None: until someone ends it."""
    weekly: Hours | None = None
    """Within start and end, only then."""

    def is_active(self, at: datetime) -> bool:
        within = self.starts_at <= at and (self.ends_at is None or at < self.ends_at)
        return within and (self.weekly is None or self.weekly.is_open(at))

    def covers(self, place: Place) -> bool:
        match self.scope:
            case Scope.ALL:
                return True
            case Scope.CLIENT:
                return place.client == self.target
            case Scope.SITE:
                return place.site is not None and place.site == self.target
            case Scope.TAG:
                return self.target in place.tags


def is_muted(silences: Iterable[Silence], place: Place, at: datetime) -> bool:
    return any(each.covers(place) and each.is_active(at) for each in silences)
