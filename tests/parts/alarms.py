"""What fires in the fleet of showcase, what fired before, who was told of it and who is not to be: rows as they are.

The server that runs on them goes on from there: what fires is so chosen that its own rounds find nothing to change for
two hours, and what waits to be sent waits for longer than any test.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from infoscreen_server.alerts import texts
from infoscreen_server.alerts.outbox import LAST_RETRY
from infoscreen_server.alerts.tables import week_text
from infoscreen_server.alerts.week import day, zone
from infoscreen_server.db import make_engine, writing
from infoscreen_server.models_alerts import (
    Alert,
    AlertAttempt,
    AlertChannel,
    AlertMark,
    AlertMessage,
    AlertRule,
    AlertRuleChannel,
    AlertSilence,
    AlertState,
    MessageKind,
    MessageStatus,
    OpeningHours,
    RuleKind,
)
from parts.showcase import Kiosk

VIENNA = zone("Europe/Vienna")
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
CHANNELS = {
    "Haustechnik": "mailtos://watchdog:secret@mail.example.org?to=haustechnik@example.org",
    "Control room": "jsons://watchdog:secret@alerts.example.org/infoscreens",
    "Night shift": "tgram://123456789:secret/987654321",
}
FAILING = "Control room"
"""It gave a message up, and what came since waits."""
SCREEN_FIRES = {13: "BLACK", 17: "FROZEN", 29: "BLACK", 3: "BLACK", 7: "FROZEN", 19: "BLACK"}
"""Kiosks whose picture is wrong, or was before nobody could tell any more: neither ends an alert."""
REASONS = {"BLACK": "The screen is black", "FROZEN": "The picture has not changed for 30 s"}
FLAPS = 29
SILENCED = 24


def fill(database_url: str, kiosks: Sequence[Kiosk], now: datetime) -> None:
    engine = make_engine(database_url)
    try:
        with writing(engine) as connection:
            _Told(connection, kiosks, now).all()
    finally:
        engine.dispose()


@dataclass
class _Told:
    connection: Connection
    kiosks: Sequence[Kiosk]
    now: datetime
    rules: dict[RuleKind, Any] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)

    def all(self) -> None:
        self._settings()
        self._exceptions()
        self._past()
        self._present()
        self.connection.execute(update(AlertMark).values(evaluated_at=self.now, deaf_until=self.now))

    # --- what people set --------------------------------------------------------------------------------------------

    def _settings(self) -> None:
        for name, url in CHANNELS.items():
            values = {"name": name, "url": url, "created_at": self.now - 90 * DAY}
            added = self.connection.execute(insert(AlertChannel).values(values).returning(AlertChannel.id))
            self.channels[name] = added.scalar_one()
        self._set(RuleKind.ERRORS, tag="4k", threshold=25, clear_threshold=5, window=1800, repeat=0)
        self._set(RuleKind.BUFFER, enabled=False)
        # The outage that is told of here is none: its end has to wait until all was looked at.
        self._set(RuleKind.OUTAGE, keep=86_400)
        self._set(RuleKind.CRASH_LOOP, in_hours=False, repeat=86_400)
        night = {"name": "Abfahrtstafeln in der Nacht", "kind": RuleKind.SCREEN, "enabled": False, "tag": "departures"}
        times = {"hold": 120, "keep": 60, "repeat": 3600, "in_hours": False, "created_at": self.now - DAY}
        self.connection.execute(insert(AlertRule).values(night | times))
        rows = self.connection.execute(select(*AlertRule.__table__.columns).order_by(AlertRule.id.desc()))
        self.rules = {row.kind: row for row in rows}
        chosen = [(RuleKind.ERRORS, FAILING), (RuleKind.CRASH_LOOP, FAILING), (RuleKind.CRASH_LOOP, "Haustechnik")]
        pairs = [{"rule_id": self.rules[kind].id, "channel_id": self.channels[name]} for kind, name in chosen]
        self.connection.execute(insert(AlertRuleChannel), pairs)

    def _set(self, kind: RuleKind, **values: Any) -> None:
        self.connection.execute(update(AlertRule).where(AlertRule.kind == kind).values(values))

    def _exceptions(self) -> None:
        sunday = week_text((*[()] * 6, day("02:00-04:30")))
        work = {"note": "Umbau der Halle, Firma Huber", "by": "anna", "ends_at": self.now + 3 * HOUR}
        for each in (
            {"scope": "site", "target": "Graz Messe", **work},
            {"scope": "client", "target": self.kiosks[SILENCED].uuid, "note": "", "by": "superadmin"},
            {"scope": "tag", "target": "4k", "week": sunday, "zone": "Europe/Vienna", "note": "Updates", "by": "anna"},
            {
                "scope": "all",
                "target": "",
                "starts_at": self.now + 4 * DAY,
                "ends_at": self.now + 4 * DAY + 2 * HOUR,
                "note": "New switches in the server room",
                "by": "superadmin",
            },
        ):
            silence = {"starts_at": self.now - HOUR, "ends_at": None, "week": None, "zone": None}
            self.connection.execute(insert(AlertSilence).values({**silence, "created_at": self.now - HOUR, **each}))
        first = self.now.date() + 30 * DAY
        closed = [first + n * DAY for n in (0, 1, 2, 3, 10, 40)]
        usual = ["06:00-22:00"] * 5 + ["08:00-18:00", ""]
        shop = ["09:00-12:30, 13:30-18:00"] * 4 + ["09:00-12:30, 13:30-20:00", "18:00-02:00", ""]
        for tag, table, dates in (("", usual, closed), ("shop window", shop, [])):
            week = week_text(tuple(day(text) for text in table))
            values = {"tag": tag, "zone": "Europe/Vienna", "week": week}
            values["closed"] = json.dumps([each.isoformat() for each in dates])
            self.connection.execute(insert(OpeningHours).values(values))

    # --- what fires and fired ---------------------------------------------------------------------------------------

    def _present(self) -> None:
        for number in (23, 24):
            self._fires(
                RuleKind.OFFLINE, [self.kiosks[number]], 2 * HOUR + number * MINUTE, {}, told=number != SILENCED
            )
        for status in ("BLACK", "FROZEN"):
            for number in [each for each, wrong in SCREEN_FIRES.items() if wrong == status]:
                figures = {"status": status, "reason": REASONS[status]}
                self._fires(RuleKind.SCREEN, [self.kiosks[number]], number * MINUTE, figures, told=number % 3 != 1)
        self._fires(RuleKind.CRASH_LOOP, [self.kiosks[FLAPS]], 40 * MINUTE, {"n": 6})
        self._flaps(RuleKind.SCREEN, self.kiosks[FLAPS])
        self._fires(RuleKind.OUTAGE, [], 4 * MINUTE, {"n": 17, "of": 40})

    def _past(self) -> None:
        """A week of it, the newest last."""
        for number in range(24, 0, -1):
            ago, kiosk = number * 6 * HOUR + number * 7 * MINUTE, self.kiosks[number * 5 % len(self.kiosks)]
            kind = (RuleKind.OFFLINE, RuleKind.SCREEN, RuleKind.ERRORS, RuleKind.BUFFER, RuleKind.CRASH_LOOP)[
                number % 5
            ]
            figures: dict[str, Any] = {"n": 12 + number} if number % 5 in (2, 4) else {}
            if kind is RuleKind.SCREEN:
                figures = {"status": "FROZEN", "reason": REASONS["FROZEN"]}
            elif kind is RuleKind.BUFFER:
                figures = {"text": "The outbox dropped 214 DEBUG records, the oldest it had (size bound)"}
            self._fired(kind, [kiosk], ago, number * 11 * MINUTE, figures, told=number % 7 != 3)
        linz = [each for each in self.kiosks if each.site.startswith("Linz")][:9]
        self._fired(RuleKind.OFFLINE, linz, 28 * HOUR, 42 * MINUTE, {})
        self._fired(RuleKind.OUTAGE, [], 3 * HOUR, 9 * MINUTE, {"n": 38, "of": 40})

    def _fires(
        self, kind: RuleKind, who: Sequence[Kiosk], ago: timedelta, figures: dict[str, Any], *, told: bool = True
    ) -> None:
        began = self.now - ago
        ids = self._alerts(kind, who, began, figures)
        state = {"phase": "firing", "since": None, "changes": "[]", "rule_id": self.rules[kind].id}
        uuids = [each.uuid for each in who] or [""]
        self.connection.execute(insert(AlertState), [state | {"client_uuid": uuid} for uuid in uuids])
        if told:
            self._say(MessageKind.FIRING, kind, who, ids, began + 10 * MINUTE if ago > 15 * MINUTE else began)

    def _flaps(self, kind: RuleKind, kiosk: Kiosk) -> None:
        """In place of what its rule and screen fire: six changes within the hour."""
        times = [(self.now - n * 5 * MINUTE).isoformat() for n in range(6, 0, -1)]
        this = (AlertState.rule_id == self.rules[kind].id) & (AlertState.client_uuid == kiosk.uuid)
        self.connection.execute(update(AlertState).where(this).values(changes=json.dumps(times)))
        figures = {"status": "BLACK", "reason": REASONS["BLACK"]}
        ids = self._alerts(kind, [kiosk], self.now - 30 * MINUTE, figures, flapping=True)
        self._say(MessageKind.FLAPPING, kind, [kiosk], ids, self.now - 5 * MINUTE)

    def _fired(
        self,
        kind: RuleKind,
        who: Sequence[Kiosk],
        ago: timedelta,
        lasted: timedelta,
        figures: dict[str, Any],
        *,
        told: bool = True,
    ) -> None:
        began, ended = self.now - ago, self.now - ago + lasted
        ids = self._alerts(kind, who, began, figures, ended_at=ended, closed_at=ended)
        if told:
            self._say(MessageKind.FIRING, kind, who, ids, began + 10 * MINUTE)
            self._say(MessageKind.RECOVERED, kind, who, ids, ended, ended=ended)

    def _alerts(
        self, kind: RuleKind, who: Sequence[Kiosk], began: datetime, figures: dict[str, Any], **more: Any
    ) -> list[int]:
        rule = self.rules[kind]
        row = {
            "rule_id": rule.id,
            "rule_name": rule.name,
            "kind": kind,
            "began_at": began,
            "detail": json.dumps(figures),
        }
        row |= {"fired_at": min(began + 10 * MINUTE, self.now - MINUTE), "notices": 0, **more}
        places: list[dict[str, str | None]] = [{"client_uuid": each.uuid, "site": each.site} for each in who]
        return [
            self.connection.execute(insert(Alert).values(row | place).returning(Alert.id)).scalar_one()
            for place in places or [{"client_uuid": None, "site": None}]
        ]

    # --- who was told -----------------------------------------------------------------------------------------------

    def _say(
        self,
        what: MessageKind,
        kind: RuleKind,
        who: Sequence[Kiosk],
        ids: Collection[int],
        at: datetime,
        *,
        ended: datetime | None = None,
    ) -> None:
        lead = min(ids)
        number = self.connection.scalar(select(func.count(func.distinct(AlertMessage.number))).where(_bears(lead)))
        number = 1 + (number or 0)
        abouts = [texts.About(each.uuid, each.name, at, ended, "") for each in who]
        title = texts.title(what, kind, who[0].site if who else None, abouts, f"{lead}-{number}")
        for name, channel in self.channels.items():
            row = {"alert_id": lead, "number": number, "kind": what, "channel_id": channel, "channel_name": name}
            row |= {"topic": str(lead), "title": title, "body": title, "created_at": at}
            self._send(row, at, fails=name == FAILING and at > self.now - 28 * HOUR)
        noted: dict[str, Any] = {"closed_by": lead}
        if what in (MessageKind.FIRING, MessageKind.FLAPPING):
            noted = {"announced_at": at, "announced_by": lead, "last_notice_at": self.now - HOUR}
        self.connection.execute(update(Alert).where(Alert.id.in_(ids)).values(noted))

    def _send(self, row: dict[str, Any], at: datetime, *, fails: bool) -> None:
        done: dict[str, Any] = {"status": MessageStatus.SENT, "due_at": None, "finished_at": at + timedelta(seconds=1)}
        errors: Sequence[str | None] = [None]
        if fails:
            tries = max(1, min(13, (self.now - at) // (10 * MINUTE)))
            errors = [*["it did not answer in time"] * 2, *["it answered 503"] * 11][-tries:]
            done |= {"finished_at": at + 24 * HOUR, "status": MessageStatus.FAILED, "error": errors[-1]}
            if at > self.now - 24 * HOUR:
                done |= {"status": MessageStatus.PENDING, "due_at": self.now + LAST_RETRY, "finished_at": None}
        done["attempts"] = len(errors)
        made = insert(AlertMessage).values(row | done).returning(AlertMessage.id)
        number = self.connection.execute(made).scalar_one()
        for attempt, error in enumerate(errors, 1):
            when = at + (attempt - 1) * MINUTE
            values = {"message_id": number, "number": attempt, "at": when, "ended_at": when, "error": error}
            self.connection.execute(insert(AlertAttempt).values(values))


def _bears(lead: int) -> Any:
    return AlertMessage.alert_id == lead


def clear(database_url: str) -> None:
    """No rule either: as it is where somebody took all of it away."""
    engine = make_engine(database_url)
    try:
        with writing(engine) as connection:
            connection.execute(delete(AlertRule))
    finally:
        engine.dispose()
