"""From the outbox to real receivers: a web server and a mail server. The part that does it is in test_alert_service."""

import html
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from infoscreen_server.alerts import outbox, sender, settings
from infoscreen_server.alerts.channels import ChannelError, check_url, target
from infoscreen_server.alerts.deliver import Delivery, send_test
from infoscreen_server.models_alerts import MessageStatus
from parts.fleet import Fleet
from parts.mailbox import Mailbox, Webhook
from parts.posting import add_channel, errors, post, statuses
from parts.wait import free_port, wait_for

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
COMPLETE = (
    "mailto://10.0.0.1?from=a@example.org&to=b@example.org",
    "mailtos://me:pw@10.0.0.1:587?from=a@example.org",
    "json://10.0.0.1/hook",
    "jsons://me:pw@10.0.0.1:8443/hook",
    "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
    "gchat://workspace/key/token",
    "gotify://10.0.0.1/token",
    "hassio://10.0.0.1/token",
    "matrixs://me:pw@10.0.0.1/#room",
    "mmost://10.0.0.1/3ccdd113474722377935511fc85d3dd4",
    "msteams://team/12345678-1234-1234-1234-123456789012@12345678-1234-1234-1234-123456789012/"
    "12345678901234567890123456789012/12345678-1234-1234-1234-123456789012",
    "workflows://10.0.0.1:443/643a8c4d5f/signature",
    "nctalk://me:pw@10.0.0.1/room",
    "ntfy://topic",
    "ntfys://10.0.0.1/topic",
    "pover://123456789012345678901234567890@123456789012345678901234567890",
    "rocket://me:pw@10.0.0.1/#channel",
    "signal://10.0.0.1:8080/+15551234567/+15551234568",
    "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
    "tgram://123456789:abcdefg_hijklmnop/12315544",
    "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
)


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    with Fleet(database_url) as fleet:
        yield fleet


def deliver(delivery: Delivery, now: datetime = NOW) -> None:
    """Until nothing more is due."""
    delivery.step(now)
    while delivery.running:
        wait_for(lambda: any(each.child.ended for each in delivery.running), "a child ends", 40)
        delivery.step(now)


# --- what a channel may be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", COMPLETE)
def test_a_url_of_each_service_is_understood(url: str) -> None:
    check_url(url, allow_local=False)


@pytest.mark.parametrize("url", ["slack://s3cret", "rocket://10.0.0.1", "tgram://s3cret", "gotify://10.0.0.1"])
def test_a_url_that_lacks_something_is_refused(url: str) -> None:
    with pytest.raises(ChannelError, match=r"^the URL is not complete, or not as this service wants it$"):
        check_url(url, allow_local=False)


@pytest.mark.parametrize(
    "url",
    [
        "mailtos://me:s3cret@10.0.0.1?from=a@example.org&to=a@example.org,b@example.org",
        "mailto://10.0.0.1/a@example.org/b@example.org?from=a@example.org",
        "mailto://10.0.0.1?from=a@example.org&to=b@example.org&cc=c@example.org",
        "mailto://10.0.0.1?from=a@example.org&to=b@example.org&bcc=c@example.org",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#one/#two",
        "tgram://123456789:abcdefg_hijklmnop/12315544/12315545",
        "ntfys://10.0.0.1/s3cret/topic",
        "mmost://10.0.0.1/3ccdd113474722377935511fc85d3dd4?to=one,two",
        "matrixs://me:s3cret@10.0.0.1/#one/#two",
        "matrixs://me:s3cret@10.0.0.1?mode=off",
        "nctalk://me:s3cret@10.0.0.1/one/two",
        "rocket://me:s3cret@10.0.0.1/#one/@two",
        "signal://10.0.0.1:8080/+15551234567/+15551234568/+15551234569",
        "signal://10.0.0.1:8080/+15551234567/+15551234568/+15551234569?batch=yes",
    ],
)
def test_a_channel_has_one_recipient(url: str) -> None:
    """What one of several refuses would be sent to all of them again and again."""
    with pytest.raises(ChannelError, match=r"^the URL names several recipients; add a channel for each$"):
        check_url(url, allow_local=False)


def test_an_option_that_names_a_file_is_refused_where_apprise_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the URL came into the database, and were the options read differently before."""
    url = "workflow://10.0.0.1/a/b?x=1;template=/etc/hostname"
    found = target("workflow://10.0.0.1/a/b")
    with pytest.raises(ChannelError, match="the option template is not allowed"):
        sender._plugin(url, found)
    monkeypatch.setattr("infoscreen_server.alerts.channels.REFUSED_OPTIONS", frozenset())
    assert sender._plugin(url, found) is not None


def test_a_webhook_of_rocket_chat_is_asked_where_it_is() -> None:
    with Webhook() as hook:
        send_test(f"rocket://aaaa1111/bbbb2222@127.0.0.1:{hook.port}", "Title", "Body", True, 20)
        assert hook.asked == ["POST /hooks/aaaa1111/bbbb2222"]


def test_a_test_message_arrives_or_says_why_not() -> None:
    with Webhook() as hook, Mailbox() as mailbox:
        send_test(hook.url(), "Title", "Body", True, 20)
        send_test(mailbox.url(), "Title", "Body", True, 20)
        assert [(each["title"], each["message"]) for each in hook.taken] == [("Title", "Body")]
        assert "Subject: Title\r\n" in mailbox.mails[0]
        for url in (hook.url("s3cret"), mailbox.url()):
            with pytest.raises(ChannelError, match=r"^127\.0\.0\.1 is an address of this machine"):
                send_test(url, "Title", "Body", False, 20)
        assert (len(hook.asked), len(mailbox.mails)) == (1, 1)


@pytest.mark.parametrize(
    ("status", "text"),
    [(500, r"^it answered 500$"), (401, r"^it answered 401$"), (302, r"^it answered 302, to send it")],
)
def test_an_answer_that_is_no_yes_is_told_without_the_url(status: int, text: str) -> None:
    with Webhook() as other, Webhook(status, f"http://127.0.0.1:{other.port}/s3cret") as hook:
        with pytest.raises(ChannelError, match=text):
            send_test(hook.url("s3cret"), "Title", "Body", True, 20)
        assert (len(hook.asked), other.asked) == (1, [])


def test_other_ways_to_fail_are_told_without_the_url() -> None:
    with Mailbox(refuses=True) as mailbox, Webhook() as hook, Webhook(hangs=True) as hanging:
        for url, text in (
            (f"json://127.0.0.1:{free_port()}/s3cret", "^nothing listens there$"),
            (f"mailto://127.0.0.1:{free_port()}?from=a@example.org&to=s3cret@example.org", "^nothing listens there$"),
            (f"jsons://127.0.0.1:{hook.port}/s3cret", "^it does not speak TLS as it should$"),
            (mailbox.url(), "^the mail server answered 550$"),
            ("json://no-such-host.invalid/s3cret", r"^the name no-such-host\.invalid is not known$"),
            (hanging.url("s3cret"), "^it took too long$"),
        ):
            with pytest.raises(ChannelError, match=text):
                send_test(url, "Title", "Body", True, 4)


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('127.0.0.1', {port}))",
        "socket.create_connection(('localhost', {port}))",
        "socket.socket().connect_ex(('127.0.0.1', {port}))",
        "socket.socket().connect(('127.0.0.1', 0))",
        "socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', {port}))",
        "socket.create_connection((own_address(), {port}))",
        "socket.socket(socket.AF_UNIX).connect('/run/dbus/system_bus_socket')",
        "requests.get('http://127.0.0.1:{port}/')",
        "subprocess.run(['true'])",
        "os.system('true')",
        "open('/tmp/never', 'w')",
        "os.open('/tmp/never', os.O_CREAT)",
    ],
)
def test_whatever_a_plugin_did_it_reaches_nothing_of_this_machine(attempt: str) -> None:
    """Also where a name has another address by the time of the connection."""
    with Webhook() as hook:
        program = (
            "import os, requests, socket, subprocess\n"
            "def own_address():\n"
            "    with socket.socket(type=socket.SOCK_DGRAM) as asking:\n"
            "        asking.connect(('198.51.100.1', 0))\n"
            "        return asking.getsockname()[0]\n"
            "from infoscreen_server.alerts import sender\n"
            "sender._guard(sender.Ear(), False)\n" + attempt.format(port=hook.port)
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "PermissionError" in done.stderr
        assert hook.asked == []


# --- what is too long -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", COMPLETE)
def test_every_service_gets_one_message_that_is_no_longer_than_it_takes(url: str) -> None:
    lines = [f"Screen <{n}> & more: since 2026-05-04 12:00 UTC. Black: {'reason <&> ä ' * 400}" for n in range(20)]
    body = "\n".join(lines) + "\n\nRule: Black\nhttps://screens.example.org/"
    plugin = sender._plugin(f"{url}{'&' if '?' in url else '?'}overflow=split", target(url))
    got: list[dict[str, Any]] = []

    def send(**said: Any) -> bool:
        got.append(said)
        return True

    plugin.send = send
    errand = {"title": "ALERT 20 screens, Linz: picture wrong [#12-1]", "body": body, "tone": "failure", "cut": "… cut"}
    assert sender._send(plugin, errand, sender.Ear()) is None
    (said,) = got
    assert len(said["body"]) <= plugin.body_maxlen
    text = html.unescape(said["body"]).replace("\xa0", " ")
    assert "… cut" in text
    assert text.endswith("https://screens.example.org/")
    assert said["title"].endswith("[#12-1]") or "[#12-1]" in text
    assert len(said["body"]) > plugin.body_maxlen / 2 or "ntfy" in url


def test_a_long_message_arrives_cut_in_the_language_of_messages(fleet: Fleet) -> None:
    with Webhook() as hook:
        channel = add_channel(fleet, "hook", f"mmost://127.0.0.1:{hook.port}/3ccdd113474722377935511fc85d3dd4")
        post(fleet, channel, ["[#1] long"], NOW)
        fleet.run(f"UPDATE alert_messages SET body = '{'x' * 9_000}'")
        deliver(Delivery(fleet.engine, allow_local=True))
        (text,) = [each["text"] for each in hook.taken]
    assert 3_000 < len(text) <= 4_000
    assert text.endswith("\n… cut here: this service takes no longer message")
    assert set(statuses(fleet).values()) == {"sent"}


# --- delivery ---------------------------------------------------------------------------------------------------------


def test_messages_arrive_at_a_webhook_and_by_mail(fleet: Fleet) -> None:
    with Webhook() as hook, Mailbox() as mailbox:
        for name, url in (("hook", hook.url()), ("mail", mailbox.url())):
            post(fleet, add_channel(fleet, name, url), [f"[#1] {name} ä"], NOW)
        deliver(Delivery(fleet.engine, allow_local=True))
        assert [(each["title"], each["message"], each["type"]) for each in hook.taken] == [
            ("[#1] hook ä", "of [#1] hook ä", "failure")
        ]
        assert len(mailbox.mails) == 1
    assert set(statuses(fleet).values()) == {"sent"}
    assert errors(fleet) == [None, None]
    assert fleet.one("SELECT count(*) FROM alert_attempts WHERE ended_at IS NULL") == 0
    assert fleet.one("SELECT count(*) FROM alert_messages WHERE due_at IS NOT NULL OR finished_at IS NULL") == 0


def test_it_is_tried_again_after_an_error_and_later_ones_of_the_topic_wait(fleet: Fleet) -> None:
    with Webhook(500) as hook:
        channel = add_channel(fleet, "hook", hook.url())
        post(fleet, channel, ["begins", "ends"], NOW, "screen 1")
        post(fleet, channel, ["other"], NOW, "screen 2")
        delivery = Delivery(fleet.engine, allow_local=True)
        deliver(delivery)
        assert statuses(fleet) == dict.fromkeys(["begins", "ends", "other"], "pending")
        assert errors(fleet) == ["it answered 500"] * 2
        hook.status = 200
        deliver(delivery, NOW + timedelta(seconds=29))
        assert len(hook.asked) == 2
        deliver(delivery, NOW + timedelta(seconds=40))
        assert sorted(hook.titles) == ["begins", "ends", "other"]
        assert hook.titles.index("begins") < hook.titles.index("ends")
    assert set(statuses(fleet).values()) == {"sent"}
    assert fleet.rows("SELECT DISTINCT error FROM alert_messages") == [None]


def test_it_is_given_up_after_a_day(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    channel = add_channel(fleet, "hook", f"json://127.0.0.1:{free_port()}/s3cret")
    post(fleet, channel, ["old"], NOW)
    delivery = Delivery(fleet.engine, allow_local=True)
    deliver(delivery, NOW + timedelta(hours=23, minutes=59))
    assert statuses(fleet) == {"old": "pending"}
    deliver(delivery, NOW + timedelta(hours=24, minutes=30))
    assert statuses(fleet) == {"old": "failed"}
    assert fleet.one("SELECT error FROM alert_messages") == "nothing listens there"
    assert "attempt 2: nothing listens there; it is given up" in caplog.text
    deliver(delivery, NOW + timedelta(days=3))
    assert fleet.one("SELECT attempts FROM alert_messages") == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_a_service_will_never_take_is_given_up_soon_and_the_next_of_its_topic_passes(
    fleet: Fleet, status: int
) -> None:
    with Webhook(status) as hook:
        channel = add_channel(fleet, "hook", hook.url())
        post(fleet, channel, ["bad", "good"], NOW, "screen 1")
        delivery = Delivery(fleet.engine, allow_local=True)
        for number in range(outbox.MOST_REFUSALS):
            assert statuses(fleet) == {"bad": "pending", "good": "pending"}
            if number == outbox.MOST_REFUSALS - 1:
                break
            deliver(delivery, NOW + timedelta(hours=number))
        delivery.step(NOW + timedelta(hours=number))
        wait_for(lambda: all(each.child.ended for each in delivery.running), "the last try ends", 40)
        hook.status = 200
        deliver(delivery, NOW + timedelta(hours=number))
        assert hook.titles == ["good"]
    assert statuses(fleet) == {"bad": "failed", "good": "sent"}
    assert fleet.one("SELECT error FROM alert_messages WHERE status = 'failed'") == f"it answered {status}"


def test_what_could_not_be_sent_before_counts_for_no_refusal(fleet: Fleet) -> None:
    """A gateway that comes back after a while may refuse the first thing that it gets."""
    post(fleet, add_channel(fleet, "hook", "json://10.0.0.1/"), ["m"], NOW)
    now, said = NOW, ["nothing listens there"] * 8 + ["it answered 400"] * outbox.MOST_REFUSALS
    found = []
    for error in said:
        now += timedelta(minutes=31)
        (claim,) = outbox.claim(fleet.engine, "a", now, (), 1)
        found.append(outbox.failed(fleet.engine, claim, error, now, 0.5, unwanted="400" in error))
    assert found == [MessageStatus.PENDING] * (len(said) - 1) + [MessageStatus.FAILED]


def test_refusals_of_another_address_count_for_nothing(fleet: Fleet) -> None:
    channel = add_channel(fleet, "hook", "json://10.0.0.1/")
    post(fleet, channel, ["m"], NOW)
    now = NOW
    for number in range(1, 2 * outbox.MOST_REFUSALS):
        now += timedelta(minutes=31)
        if number == outbox.MOST_REFUSALS:
            settings.change_url(fleet.engine, channel, "json://10.0.0.2/", now, allow_local=True)
        (claim,) = outbox.claim(fleet.engine, "a", now, (), 1)
        status = outbox.failed(fleet.engine, claim, "it answered 400", now, 0.5, unwanted=True)
        last = number == 2 * outbox.MOST_REFUSALS - 1
        assert status == (MessageStatus.FAILED if last else MessageStatus.PENDING)


def test_a_mail_that_was_taken_counts_although_the_server_hangs_up(fleet: Fleet) -> None:
    with Mailbox(hangs_up=True) as mailbox:
        post(fleet, add_channel(fleet, "mail", mailbox.url()), ["m"], NOW)
        deliver(Delivery(fleet.engine, allow_local=True))
        assert len(mailbox.mails) == 1
    assert statuses(fleet) == {"m": "sent"}
    with Mailbox(refuses=True, hangs_up=True) as mailbox, pytest.raises(ChannelError, match=r"answered 550$"):
        send_test(mailbox.url(), "Title", "Body", True, 20)


def test_one_whose_channel_was_deleted_fails(fleet: Fleet) -> None:
    post(fleet, add_channel(fleet, "gone", "json://10.0.0.1/"), [f"m{n}" for n in range(150)], NOW)
    fleet.run("DELETE FROM alert_channels")
    delivery = Delivery(fleet.engine, allow_local=True)
    deliver(delivery)
    deliver(delivery)
    assert set(statuses(fleet).values()) == {"failed"}
    assert fleet.one("SELECT DISTINCT error FROM alert_messages") == outbox.NO_CHANNEL


def test_channels_that_hang_delay_no_other(fleet: Fleet) -> None:
    with Webhook(hangs=True) as hanging, Webhook() as hook:
        for number in range(3):
            post(fleet, add_channel(fleet, f"hangs {number}", hanging.url()), ["first", "second"], NOW)
        delivery = Delivery(fleet.engine, allow_local=True)
        post(fleet, add_channel(fleet, "hook", hook.url()), [f"m{n}" for n in range(5)], NOW)

        def all_taken() -> bool:
            delivery.step(NOW)
            return len(hook.taken) == 5

        wait_for(all_taken, "all messages to the channel that works", 15)
        wait_for(lambda: any(each.child.ended for each in delivery.running), "the last of them has ended")
        delivery.step(NOW)
        assert len(delivery.running) == 3
        assert len({each.claim.channel_id for each in delivery.running}) == len(delivery.running)
        # From then on they are known, and leave even more room.
        for each in delivery.running:
            each.deadline = 0
        delivery.step(NOW)
        assert len(delivery.doubtful) == 3
        assert len(delivery.running) == 2
        delivery.stop(NOW)
    assert "it took too long" in errors(fleet)


def test_no_address_of_this_machine_at_the_time_of_sending(fleet: Fleet) -> None:
    """However the URL came into the database."""
    with Webhook() as hook:
        post(fleet, add_channel(fleet, "a", hook.url()), ["address"], NOW)
        post(fleet, add_channel(fleet, "n", f"json://localhost:{hook.port}/s3cret"), ["name"], NOW)
        deliver(Delivery(fleet.engine, allow_local=False))
        assert hook.asked == []
    assert all(each is not None and "is an address of this machine" in each for each in errors(fleet))
    assert "s3cret" not in str(errors(fleet))


def test_no_secret_in_a_log_a_row_or_the_process_list(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Webhook(hangs=True) as hanging, Webhook(500) as hook:
        for number, url in enumerate(
            (hanging.url("s3cret"), hook.url("s3cret?+X-Key=s3cret"), "slack://s3cret/s3cret")
        ):
            post(fleet, add_channel(fleet, f"c{number}", url), ["message"], NOW)
        delivery = Delivery(fleet.engine, allow_local=True)
        delivery.step(NOW)
        wait_for(lambda: hanging.asked, "the first is asked")
        child = psutil.Process(next(each.child.process.pid for each in delivery.running))
        assert "infoscreen_server.alerts.sender" in child.cmdline()
        assert "s3cret" not in f"{child.cmdline()} {child.environ()}"
        wait_for(lambda: hook.asked, "the second is asked")
        for each in delivery.running[1:]:
            wait_for(lambda each=each: each.child.ended, "it ends")  # type: ignore[misc]
        delivery.running[0].deadline = 0
        delivery.step(NOW)
    rows = fleet.rows("SELECT * FROM alert_attempts") + fleet.rows("SELECT * FROM alert_messages")
    assert len(rows) == 6
    assert "json://127.0.0.1" in caplog.text
    assert "s3cret" not in f"{rows} {caplog.text} {delivery}"


# --- leases -----------------------------------------------------------------------------------------------------------


def test_what_is_taken_comes_back_when_the_lease_has_run_out(fleet: Fleet) -> None:
    post(fleet, add_channel(fleet, "hook", "json://10.0.0.1/"), ["m"], NOW)
    (first,) = outbox.claim(fleet.engine, "a", NOW, (), 9)
    assert fleet.rows("SELECT number, ended_at, error FROM alert_attempts") == [(1, None, None)]
    almost = NOW + outbox.LEASE - timedelta(seconds=1)
    assert outbox.claim(fleet.engine, "b", almost, (), 9) == []
    (second,) = outbox.claim(fleet.engine, "b", NOW + outbox.LEASE, (), 9)
    assert (first.attempt, second.attempt) == (1, 2)
    # The first is no longer asked whether it failed; that it was sent counts.
    outbox.failed(fleet.engine, first, "late", NOW + outbox.LEASE, 0.5)
    assert statuses(fleet) == {"m": "sending"}
    outbox.sent(fleet.engine, first, NOW + outbox.LEASE)
    outbox.failed(fleet.engine, second, "late", NOW + outbox.LEASE, 0.5)
    assert statuses(fleet) == {"m": "sent"}
    assert outbox.claim(fleet.engine, "c", NOW + timedelta(days=9), (), 9) == []


def test_what_is_given_back_is_tried_at_once_and_its_attempt_stays_open(fleet: Fleet) -> None:
    post(fleet, add_channel(fleet, "hook", "json://10.0.0.1/"), ["m"], NOW)
    outbox.release(fleet.engine, outbox.claim(fleet.engine, "a", NOW, (), 9), NOW)
    assert fleet.rows("SELECT status, error FROM alert_messages") == [("pending", outbox.CUT_OFF)]
    assert fleet.rows("SELECT ended_at, error FROM alert_attempts") == [(None, None)]
    assert [each.attempt for each in outbox.claim(fleet.engine, "b", NOW, (), 9)] == [2]


def test_what_was_cut_off_by_a_long_power_cut_is_tried_once_more_and_then_given_up(fleet: Fleet) -> None:
    """So that what kills every worker ends, too."""
    post(fleet, add_channel(fleet, "hook", "json://10.0.0.1/"), ["m"], NOW)
    outbox.claim(fleet.engine, "a", NOW, (), 9)
    later = NOW + outbox.GIVE_UP_AFTER + timedelta(hours=9)
    assert [each.attempt for each in outbox.claim(fleet.engine, "b", later, (), 9)] == [2]
    assert outbox.claim(fleet.engine, "c", later + outbox.LEASE, (), 9) == []
    assert fleet.rows("SELECT status, error FROM alert_messages") == [("failed", outbox.CUT_OFF)]


def test_several_workers_take_each_message_once_and_in_order(fleet: Fleet) -> None:
    titles = [f"{topic} {number}" for number in range(6) for topic in range(3)]
    for channel in (add_channel(fleet, f"c{number}", "json://10.0.0.1/") for number in range(5)):
        for title in titles:
            post(fleet, channel, [title], NOW, title.split()[0])
    taken: list[tuple[int, str]] = []
    lock = threading.Lock()

    def work(worker: str) -> None:
        while fleet.one("SELECT count(*) FROM alert_messages WHERE status <> 'sent'"):
            for each in outbox.claim(fleet.engine, worker, NOW, (), 2):
                with lock:
                    taken.append((each.channel_id, each.title))
                outbox.sent(fleet.engine, each, NOW)

    workers = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(60)
    assert len(taken) == len(set(taken)) == 90
    for channel, topic in {(channel, title.split()[0]) for channel, title in taken}:
        mine = [title for number, title in taken if number == channel and title.split()[0] == topic]
        assert mine == sorted(mine)


def test_a_failure_is_for_its_topic_alone(fleet: Fleet) -> None:
    channel = add_channel(fleet, "hook", "json://10.0.0.1/")
    post(fleet, channel, ["a1", "a2"], NOW, "a")
    post(fleet, channel, ["b1"], NOW, "b")
    (first,) = outbox.claim(fleet.engine, "w", NOW, (), 9)
    assert outbox.failed(fleet.engine, first, "no", NOW, 0.5) is MessageStatus.PENDING
    assert [each.title for each in outbox.claim(fleet.engine, "w", NOW, (), 9)] == ["b1"]
    assert outbox.claim(fleet.engine, "w", NOW, (), 9) == []


def test_a_busy_channel_is_left_alone_and_does_not_hide_another(fleet: Fleet) -> None:
    busy, other = (add_channel(fleet, name, "json://10.0.0.1/") for name in ("busy", "other"))
    post(fleet, busy, [f"m{number}" for number in range(50)], NOW)
    post(fleet, other, ["mine"], NOW)
    assert [each.title for each in outbox.claim(fleet.engine, "w", NOW, {busy}, 1)] == ["mine"]


# --- another address --------------------------------------------------------------------------------------------------


def test_what_waits_for_a_channel_is_due_at_once_when_its_url_is_replaced(fleet: Fleet) -> None:
    with Webhook(401) as old, Webhook() as new:
        channel, other = add_channel(fleet, "hook", old.url()), add_channel(fleet, "other", old.url())
        post(fleet, channel, ["a", "b", "c"], NOW)
        post(fleet, other, ["d"], NOW)
        delivery = Delivery(fleet.engine, allow_local=True)
        deliver(delivery)
        assert len(old.asked) == 4
        settings.change_url(fleet.engine, channel, new.url(), NOW, allow_local=True)
        deliver(delivery)
        assert (new.titles, len(old.asked)) == (["a", "b", "c"], 4)
    assert statuses(fleet) == {"a": "sent", "b": "sent", "c": "sent", "d": "pending"}


def test_what_fails_at_the_old_url_meanwhile_is_due_at_once_too(fleet: Fleet) -> None:
    channel = add_channel(fleet, "hook", "json://10.0.0.1/old")
    post(fleet, channel, ["m"], NOW)
    (taken,) = outbox.claim(fleet.engine, "w", NOW, (), 9)
    settings.change_url(fleet.engine, channel, "json://10.0.0.1/new", NOW, allow_local=False)
    assert outbox.claim(fleet.engine, "w", NOW, (), 9) == []
    assert outbox.failed(fleet.engine, taken, "no", NOW, 0.5) is MessageStatus.PENDING
    (again,) = outbox.claim(fleet.engine, "w", NOW, (), 9)
    assert again.url == "json://10.0.0.1/new"
