"""Who is told of what, and when: random lives of alerts, planned round by round as evaluate does it."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infoscreen_server.alerts.notices import GROUP_INTERVAL, Group, Notice, Plan, Round, Unsettled, plan
from infoscreen_server.models_alerts import MessageKind

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
SITES = {"a": "Linz", "b": "Linz", "c": "Wels", "d": None}
RULES = (1, 2)
REPEAT = timedelta(minutes=20)
MINUTE = timedelta(minutes=1)
FIRING, FLAPPING, REMINDER, RECOVERED, STEADY = (
    MessageKind.FIRING,
    MessageKind.FLAPPING,
    MessageKind.REMINDER,
    MessageKind.RECOVERED,
    MessageKind.STEADY,
)


NEXT = {
    (None, FIRING): FIRING,
    (None, FLAPPING): FLAPPING,
    (FIRING, FLAPPING): FLAPPING,
    (FIRING, RECOVERED): None,
    (FLAPPING, STEADY): None,
}
"""Of a rule and a client: what was said last, what may be said then, and what it amounts to. None: all is well."""


@dataclass
class World:
    """The database's part: what is noted of each alert when something was said of it."""

    now: datetime = START
    alerts: dict[int, Unsettled] = field(default_factory=dict)
    closed: dict[int, datetime] = field(default_factory=dict)
    said: dict[int, list[tuple[datetime, MessageKind]]] = field(default_factory=lambda: defaultdict(list))
    word: dict[tuple[int, str | None], MessageKind | None] = field(default_factory=dict)
    """By rule and client, as NEXT has it."""
    recovered_at: dict[Group, datetime] = field(default_factory=dict)
    muted: set[str] = field(default_factory=set)
    shut: set[str] = field(default_factory=set)
    coming: set[Group] = field(default_factory=set)
    silenced: set[int] = field(default_factory=set)
    """Alerts that were at some time: they may end unheard, or be told of late."""
    flapped: set[int] = field(default_factory=set)
    """Alerts of a pair that did meanwhile: they may end unheard, even if they were told of."""

    def open(self) -> list[Unsettled]:
        return [each for number, each in self.alerts.items() if number not in self.closed]

    def of(self, rule: int, client: str, *, flapping: bool) -> Unsettled | None:
        pair = [each for each in self.open() if each.pair == (rule, client) and each.flapping == flapping]
        return next((each for each in pair if each.ended_at is None), None)

    def fire(self, rule: int, client: str, *, flapping: bool = False) -> Unsettled:
        number = len(self.alerts) + 1
        self.alerts[number] = Unsettled(
            number, rule, client, SITES[client], flapping, self.now, None, None, None
        )  # fmt: skip
        return self.alerts[number]

    def end(self, rule: int, client: str, *, flapping: bool = False) -> None:
        alert = self.of(rule, client, flapping=flapping)
        # Not in the round in which it began: a round takes one step.
        if alert is not None and alert.fired_at < self.now:
            self.note([alert], ended_at=self.now)

    def note(self, alerts: list[Unsettled], **values: datetime) -> None:
        for each in alerts:
            self.alerts[each.id] = replace(self.alerts[each.id], **values)  # type: ignore[arg-type]

    def round(self) -> Plan:
        recent = {group: at for group, at in self.recovered_at.items() if at > self.now - GROUP_INTERVAL}
        made = plan(
            self.open(),
            Round(
                self.now,
                lambda each: each.client in self.muted,
                lambda each: each.id in self.silenced,
                lambda each: each.client not in self.shut,
                frozenset(self.coming),
                recent,
                {1: REPEAT},
            ),
        )
        late = set(self.silenced)
        self.silenced |= {each.id for each in self.open() if each.client in self.muted}
        pairs = {each.pair for each in self.open() if each.flapping}
        self.flapped |= {each.id for each in self.open() if each.pair in pairs and not each.flapping}
        for each in made.settled:
            self.close(each)
        for notice in made.notices:
            if notice.kind in (FIRING, FLAPPING):
                assert not any(each.id in late and each.client in self.shut for each in notice.alerts)
            self.tell(notice)
        self.check(made)
        return made

    def check(self, made: Plan) -> None:
        """The last word of each rule and client is true."""
        told = {each.pair for each in self.open() if each.announced_at is not None}
        assert told == {pair for pair, word in self.word.items() if word is not None}
        heard = {each.pair for notice in made.notices for each in notice.alerts}
        well = {pair for pair in heard if self.word[pair] is None}
        assert not well & {each.pair for each in self.open()}, "nobody hears that all is well where it is not"

    def spoken(self, notice: Notice) -> None:
        for each in notice.alerts:
            word = self.word.get(each.pair)
            if notice.kind is REMINDER:
                assert word is (FLAPPING if each.flapping else FIRING)
            else:
                self.word[each.pair] = NEXT[word, notice.kind]
        for each in notice.also:
            self.word[each.pair] = FIRING

    def tell(self, notice: Notice) -> None:
        self.spoken(notice)
        for each in notice.alerts:
            assert each.client not in self.muted
            self.said[each.id].append((self.now, notice.kind))
        pairs = [each.pair for each in notice.alerts]
        assert len(pairs) == len(set(pairs))
        assert all(each.ended_at is None and each.pair in pairs for each in notice.also)
        alerts, also = list(notice.alerts), [each for each in notice.also if each.announced_at is None]
        if notice.kind in (FIRING, FLAPPING):
            self.note(alerts, announced_at=self.now, last_notice_at=self.now)
        elif notice.kind is REMINDER:
            self.note(alerts, last_notice_at=self.now)
        else:
            for each in alerts:
                self.close(each)
                self.recovered_at[each.group] = self.now
            self.note(list(notice.also), last_notice_at=self.now)
            self.note(also, announced_at=self.now)
            for each in also:
                self.said[each.id].append((self.now, FIRING))

    def close(self, alert: Unsettled) -> None:
        assert alert.id not in self.closed
        self.closed[alert.id] = self.now

    def act(self, what: str, rule: int, client: str) -> None:
        if any(each.pair == (rule, client) and each.ended_at == self.now for each in self.open()):
            return  # A round takes one step.
        if what == "turn":
            if self.of(rule, client, flapping=False) is None:
                self.fire(rule, client)
            else:
                self.end(rule, client)
        elif what == "flap":
            if self.of(rule, client, flapping=True) is None:
                self.fire(rule, client, flapping=True)
            else:
                self.end(rule, client, flapping=True)
        elif what == "mute":
            self.muted ^= {client}
        elif what == "shut":
            self.shut ^= {client}
        else:
            self.coming ^= {(rule, SITES[client])}

    def is_forgotten(self, alert: Unsettled) -> bool:
        """Whether somebody should have been reminded of it."""
        flapping = [each for each in self.open() if each.flapping and each.pair == alert.pair]
        if alert.rule_id != 1 or alert.client in self.muted | self.shut or alert.ended_at is not None:
            return False
        if alert.last_notice_at is None or (flapping and not alert.flapping):
            return False
        return self.now - alert.last_notice_at >= REPEAT

    def kinds(self, number: int) -> list[MessageKind]:
        return [kind for _, kind in self.said[number] if kind is not REMINDER]


def lives(*acts: str) -> st.SearchStrategy[list[tuple[int, list[tuple[str, int, str]]]]]:
    act = st.tuples(st.sampled_from(acts), st.sampled_from(RULES), st.sampled_from(sorted(SITES)))
    return st.lists(st.tuples(st.sampled_from([5, 20, 60, 200, 700]), st.lists(act, max_size=3)), max_size=30)


def live(world: World, steps: list[tuple[int, list[tuple[str, int, str]]]]) -> None:
    for seconds, acts in steps:
        world.now += timedelta(seconds=seconds)
        for act in acts:
            world.act(*act)
        check_one_message_a_group(world.round())


def check_one_message_a_group(made: Plan) -> None:
    said = [(each.kind, each.alerts[0].group) for each in made.notices]
    assert len(said) == len(set(said))
    for notice in made.notices:
        assert len({each.group for each in notice.alerts}) == 1


def end_all(world: World) -> None:
    world.now += timedelta(seconds=5)
    world.muted, world.shut, world.coming = set(), set(), set()
    for rule in RULES:
        for client in SITES:
            world.end(rule, client)
            world.end(rule, client, flapping=True)
    for _ in range(4):
        world.round()
        world.now += GROUP_INTERVAL


@settings(max_examples=400, deadline=None)
@given(lives("turn", "turn", "turn", "flap", "mute", "shut", "coming"))
def test_every_alert_is_told_of_once_and_so_is_its_end(steps: list[tuple[int, list[tuple[str, int, str]]]]) -> None:
    world = World()
    live(world, steps)
    end_all(world)
    assert world.closed.keys() == world.alerts.keys(), "all is settled in the end"
    for number, alert in world.alerts.items():
        whole = [FLAPPING, STEADY] if alert.flapping else [FIRING, RECOVERED]
        heard = world.kinds(number)
        assert heard == whole[: len(heard)], "in this order, each once at most"
        if number not in world.silenced | world.flapped:
            assert heard == whole
        if number not in world.flapped:
            assert len(heard) != 1, "whose beginning was told of, of that the end is"
        times = [at for at, _ in world.said[number]]
        assert times == sorted(set(times)), "the end is never told in the same breath"


@settings(max_examples=300, deadline=None)
@given(lives("turn", "turn", "coming", "shut"))
def test_nobody_waits_longer_than_a_group_does(steps: list[tuple[int, list[tuple[str, int, str]]]]) -> None:
    """With rounds every five seconds."""
    world = World()
    fine = [(5, acts if first == 0 else []) for seconds, acts in steps for first in range(seconds // 5)]
    live(world, fine)
    end_all(world)
    for number, alert in world.alerts.items():
        times = {kind: at for at, kind in world.said[number]}
        if times[FIRING] <= world.now - 4 * GROUP_INTERVAL:
            assert times[FIRING] - alert.fired_at <= GROUP_INTERVAL + timedelta(seconds=5)
        assert alert.ended_at is not None
        if alert.ended_at < world.now - 4 * GROUP_INTERVAL:
            assert times[RECOVERED] - max(alert.ended_at, times[FIRING]) <= GROUP_INTERVAL + timedelta(seconds=5)


@settings(max_examples=200, deadline=None)
@given(lives("turn", "shut", "mute"))
def test_reminders_keep_their_distance(steps: list[tuple[int, list[tuple[str, int, str]]]]) -> None:
    world = World()
    live(world, steps)
    for number, alert in world.alerts.items():
        if alert.rule_id == 2:
            assert REMINDER not in [kind for _, kind in world.said[number]]
        elif alert.client in ("c", "d"):
            # Alone in their groups; the others may be named sooner, beside one that was told of before them.
            times = [at for at, kind in world.said[number] if kind in (FIRING, REMINDER)]
            assert all(later - earlier >= REPEAT for earlier, later in pairwise(times))


@settings(max_examples=200, deadline=None)
@given(lives("turn", "turn", "flap", "shut", "mute"))
def test_a_group_is_reminded_of_in_time_and_not_more_often(steps: list[tuple[int, list[tuple[str, int, str]]]]) -> None:
    world = World()
    reminded: dict[Group, datetime] = {}
    disturbed: set[Group] = set()
    """Those who were left out of a reminder are reminded of when their silence is over, or their place is open."""
    for step in steps:
        live(world, [step])
        disturbed |= {(1, SITES[client]) for client in world.muted | world.shut}
        assert not any(world.is_forgotten(each) for each in world.open()), "whatever else of its group is told of"
        groups = {world.alerts[number].group for number, said in world.said.items() if (world.now, REMINDER) in said}
        for group in groups:
            assert group in disturbed or world.now - reminded.get(group, START - REPEAT) >= REPEAT
            reminded[group] = world.now


# --- examples ---------------------------------------------------------------------------------------------------------


def rounds(world: World, span: timedelta) -> list[tuple[int, MessageKind, str]]:
    """Every five seconds: when after START, what, and of whom."""
    found = []
    for _ in range(round(span / timedelta(seconds=5))):
        made = world.round()
        for each in made.notices:
            who = "".join(alert.client or "" for alert in each.alerts)
            found.append((round((world.now - START).total_seconds()), each.kind, who))
        world.now += timedelta(seconds=5)
    return found


def test_the_first_of_a_site_waits_for_others_that_come() -> None:
    world = World(coming={(1, "Linz")})
    world.fire(1, "a")
    assert rounds(world, timedelta(seconds=20)) == []
    world.fire(1, "b")
    assert rounds(world, timedelta(seconds=60)) == [(30, FIRING, "ab")]


@pytest.mark.parametrize("shut", [True, False])
def test_one_that_nobody_follows_is_told_of_at_once_and_reminded_of(shut: bool) -> None:
    world = World(shut={"a"} if shut else set())
    world.fire(1, "a")
    expected = [(0, FIRING, "a"), *([] if shut else [(1200, REMINDER, "a"), (2400, REMINDER, "a")])]
    assert rounds(world, timedelta(minutes=45)) == expected


def test_what_comes_later_comes_together() -> None:
    world = World()
    world.fire(1, "a")
    assert rounds(world, timedelta(seconds=60)) == [(0, FIRING, "a")]
    world.fire(1, "b")
    world.fire(1, "c")
    assert rounds(world, timedelta(minutes=10)) == [(60, FIRING, "c"), (300, FIRING, "b")]


def test_ends_of_a_group_wait_for_each_other() -> None:
    world = World()
    world.fire(1, "a")
    world.fire(1, "b")
    assert rounds(world, timedelta(seconds=60)) == [(0, FIRING, "ab")]
    world.end(1, "a")
    assert rounds(world, timedelta(seconds=20)) == []
    world.end(1, "b")
    assert rounds(world, timedelta(seconds=60)) == [(80, RECOVERED, "ab")]


def test_one_that_ended_while_it_waited_is_still_told_of_in_order() -> None:
    world = World(coming={(1, "Linz")})
    world.fire(1, "a")
    assert rounds(world, timedelta(seconds=10)) == []
    world.end(1, "a")
    assert rounds(world, timedelta(seconds=60)) == [(10, FIRING, "a"), (15, RECOVERED, "a")]


def test_under_a_silence_it_ends_unheard_or_is_told_of_afterwards() -> None:
    world = World(muted={"a", "c"})
    world.fire(1, "a")
    world.fire(1, "c")
    assert rounds(world, timedelta(minutes=5)) == []
    world.end(1, "a")
    assert rounds(world, timedelta(minutes=5)) == []
    world.muted.clear()
    assert rounds(world, timedelta(minutes=5)) == [(600, FIRING, "c")]
    assert list(world.closed) == [1]


def test_an_end_under_a_silence_is_told_of_afterwards() -> None:
    world = World()
    world.fire(1, "a")
    rounds(world, timedelta(seconds=60))
    world.muted.add("a")
    world.end(1, "a")
    assert rounds(world, timedelta(minutes=4)) == []
    world.muted.clear()
    assert rounds(world, timedelta(minutes=4)) == [(300, RECOVERED, "a")]


def test_one_that_flaps_is_told_of_once_and_in_the_end_what_still_holds() -> None:
    world = World()
    world.fire(1, "a")
    assert rounds(world, timedelta(seconds=10)) == [(0, FIRING, "a")]
    world.fire(1, "a", flapping=True)
    world.end(1, "a")
    assert rounds(world, MINUTE) == [(40, FLAPPING, "a")]
    world.fire(1, "a")
    assert rounds(world, timedelta(minutes=15)) == []
    world.end(1, "a", flapping=True)
    (steady,) = world.round().notices
    assert (steady.kind, [each.id for each in steady.also]) == (STEADY, [3])
    world.end(1, "a")
    assert [kind for _, kind, _ in rounds(world, timedelta(minutes=10))] == [RECOVERED]


# --- one screen, several alerts ---------------------------------------------------------------------------------------


def test_back_and_gone_again_under_a_silence_it_is_not_well_in_the_end() -> None:
    world = World()
    world.fire(1, "a")
    rounds(world, MINUTE)
    world.muted.add("a")
    world.end(1, "a")
    assert rounds(world, MINUTE) == []
    world.fire(1, "a")
    assert rounds(world, MINUTE) == []
    world.muted.clear()
    assert rounds(world, 10 * MINUTE) == [(180, RECOVERED, "a"), (180, FIRING, "a")]


def test_back_and_gone_again_while_its_group_waits_it_is_not_well_in_the_end() -> None:
    world = World(recovered_at={(1, "Linz"): START})
    world.fire(1, "a")
    world.fire(1, "b")
    assert rounds(world, MINUTE) == [(0, FIRING, "ab")]
    world.end(1, "a")
    assert rounds(world, MINUTE) == []
    world.fire(1, "a")
    assert rounds(world, 10 * MINUTE) == [(300, RECOVERED, "a"), (300, FIRING, "a")]


def test_back_and_gone_again_elsewhere() -> None:
    """A screen that was moved: its alerts are of two groups. What silences where it was says nothing of it now."""
    made = plan(
        [
            Unsettled(1, 1, "a", "Linz", False, START, START + MINUTE, START, START),
            Unsettled(2, 1, "b", "Linz", False, START, None, START, START),
            Unsettled(3, 1, "a", "Wels", False, START + MINUTE, None, None, None),
        ],
        Round(
            START + 2 * MINUTE,
            lambda each: each.site == "Linz",
            lambda each: False,
            lambda each: True,
            frozenset(),
            {(1, "Linz"): START},
            {},
        ),
    )
    assert [(each.kind, [alert.id for alert in each.alerts]) for each in made.notices] == [
        (RECOVERED, [1]),
        (FIRING, [3]),
    ]


# --- on and off -------------------------------------------------------------------------------------------------------


def test_what_was_told_of_is_not_settled_by_flapping_that_nobody_hears_of() -> None:
    world = World()
    world.fire(1, "a")
    rounds(world, MINUTE)
    world.muted.add("a")
    world.fire(1, "a", flapping=True)
    world.end(1, "a")
    assert rounds(world, MINUTE) == []
    world.end(1, "a", flapping=True)
    assert rounds(world, MINUTE) == []
    world.muted.clear()
    assert rounds(world, MINUTE) == [(180, RECOVERED, "a")]
    assert sorted(world.closed) == [1, 2]


def test_one_that_flaps_is_reminded_of() -> None:
    world = World()
    world.fire(1, "a", flapping=True)
    world.fire(2, "a", flapping=True)
    told = [(30, FLAPPING, "a"), (30, FLAPPING, "a")]
    assert rounds(world, timedelta(minutes=45)) == [*told, (1230, REMINDER, "a"), (2430, REMINDER, "a")]


def test_one_that_flaps_again_under_a_silence_is_steady_once_for_each_time_it_was_told_of() -> None:
    world = World()
    world.fire(2, "a", flapping=True)
    assert rounds(world, MINUTE) == [(30, FLAPPING, "a")]
    world.muted.add("a")
    world.end(2, "a", flapping=True)
    assert rounds(world, MINUTE) == []
    world.fire(2, "a", flapping=True)
    assert rounds(world, MINUTE) == []
    world.muted.clear()
    assert rounds(world, MINUTE) == [(180, STEADY, "a"), (180, FLAPPING, "a")]
    world.end(2, "a", flapping=True)
    assert rounds(world, 10 * MINUTE) == [(240, STEADY, "a")]


def test_many_that_flap_behind_one_router_are_one_message() -> None:
    world = World()
    world.fire(1, "a", flapping=True)
    world.fire(1, "c", flapping=True)
    assert rounds(world, timedelta(seconds=10)) == []
    world.fire(1, "b", flapping=True)
    assert rounds(world, MINUTE) == [(30, FLAPPING, "ab"), (30, FLAPPING, "c")]
    world.end(1, "a", flapping=True)
    world.fire(1, "a")
    assert rounds(world, timedelta(seconds=10)) == []
    world.end(1, "b", flapping=True)
    (steady,) = world.round().notices
    assert [each.client for each in steady.alerts] == ["a", "b"]
    assert [each.client for each in steady.also] == ["a"]


# --- hours, and whom a reminder is for --------------------------------------------------------------------------------


def test_what_comes_out_of_a_silence_waits_until_it_is_open() -> None:
    world = World(muted={"a"})
    world.fire(2, "a")
    assert rounds(world, MINUTE) == []
    world.muted.clear()
    world.shut = {"a", "b"}
    world.fire(2, "b")
    assert rounds(world, MINUTE) == [(60, FIRING, "b")], "that was never under a silence"
    assert rounds(world, 20 * MINUTE) == []
    world.shut.clear()
    assert rounds(world, MINUTE) == [(1320, FIRING, "a")]


def test_what_comes_out_of_a_silence_and_goes_before_it_is_open_is_not_told_of() -> None:
    world = World()
    world.fire(2, "a")
    assert rounds(world, MINUTE) == [(0, FIRING, "a")]
    world.muted.add("a")
    world.end(2, "a")
    rounds(world, MINUTE)
    world.fire(2, "a")
    rounds(world, MINUTE)
    world.muted.clear()
    world.shut.add("a")
    assert rounds(world, MINUTE) == [], "it is not well, and nobody is to hear of that now"
    world.end(2, "a")
    assert rounds(world, MINUTE) == [(240, RECOVERED, "a")]
    assert sorted(world.closed) == [1, 2]


def test_one_is_reminded_of_however_many_others_fail_meanwhile() -> None:
    world = World()
    world.fire(1, "a")
    assert rounds(world, 19 * MINUTE) == [(0, FIRING, "a")]
    world.fire(1, "b")
    assert rounds(world, 30 * MINUTE) == [(1140, FIRING, "b"), (1200, REMINDER, "ab"), (2400, REMINDER, "ab")]
