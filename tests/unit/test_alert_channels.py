import socket

import pytest
from apprise.utils import parse
from hypothesis import given
from hypothesis import strategies as st

from infoscreen_server.alerts import channels
from infoscreen_server.alerts.channels import (
    REFUSED_OPTIONS,
    SCHEMES,
    ChannelError,
    check_host,
    check_url,
    is_allowed,
    is_own,
    may_send,
    shown,
    target,
)
from infoscreen_server.alerts.outbox import FIRST_RETRY, LAST_RETRY, retry_after
from infoscreen_server.alerts.sender import shortened

NOTE = "… cut here"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mailto://me:s3cret@example.org", "mailto://example.org"),
        ("mailtos://me:s3cret@example.org:587?smtp=s3cret&to=s3cret", "mailtos://example.org"),
        ("json://me:s3cret@10.0.0.1:8080/s3cret?+X-Key=s3cret", "json://10.0.0.1"),
        ("jsons://[fd00::1]:8080/s3cret", "jsons://[fd00::1]"),
        ("JSON://Example.ORG/s3cret", "json://example.org"),
        ("slack://s3cret/s3cret/s3cret", "slack://slack.com"),
        ("discord://s3cret/s3cret", "discord://discord.com"),
        ("tgram://123:s3cret/s3cret", "tgram://api.telegram.org"),
        ("pover://s3cret@s3cret", "pover://api.pushover.net"),
        ("msteams://s3cret/s3cret@x/s3cret", "msteams://webhook.office.com"),
        ("ntfy://s3cret", "ntfy://ntfy.sh"),
        ("ntfys://s3cret/s3cret?mode=cloud", "ntfys://ntfy.sh"),
        ("ntfys://ntfy.example.org/s3cret", "ntfys://ntfy.example.org"),
        ("matrixs://me:s3cret@matrix.example.org/#s3cret", "matrixs://matrix.example.org"),
        ("matrix://s3cret", "matrix://…"),
        ("matrix://s3cret/x?mode=t2bot", "matrix://…"),
        ("https://hooks.slack.com/services/s3cret", "https://hooks.slack.com"),
        ("rocket://s3cret/s3cret@chat.example.org", "rocket://chat.example.org"),
        ("rockets://me:s3cret%2Fs3cret@chat.example.org:8443/#s3cret", "rockets://chat.example.org"),
        ("rocket://me:s3cret/s3cret@chat.example.org/x", "rocket://chat.example.org"),
        ("rocket://me:s3cret@chat.example.org/#s3cret", "rocket://chat.example.org"),
        # A password that is not encoded as it has to be.
        ("mailto://me:s3cret/s3cret@example.org", "mailto://…"),
        ("mailto://me:s3cret?s3cret@example.org", "mailto://…"),
        ("mailto://me:s3cret@s3cret@example.org", "mailto://example.org"),
        (f"json://{'s3cret' * 11}/x", "json://…"),
        ("exec://s3cret", "…"),
        ("https://example.org/s3cret", "…"),
        ("s3cret", "…"),
        ("", "…"),
    ],
)
def test_nothing_but_service_and_host_is_shown(url: str, expected: str) -> None:
    assert shown(url) == expected


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("exec://s3cret", "expected a URL that begins with one of discord, gchat"),
        ("syslog://s3cret", "expected a URL that begins with one of"),
        ("dbus://s3cret", "expected a URL that begins with one of"),
        ("file:///s3cret", "expected a URL that begins with one of"),
        ("http://example.org/s3cret", "expected a URL that begins with one of"),
        ("https://example.org/s3cret", "example.org is no service that is known"),
        ("https://hooks.slack.com.example.org/s3cret", "hooks.slack.com.example.org is no service"),
        ("json://10.0.0.1/x json://10.0.0.1/s3cret", "without spaces"),
        ("json://10.0.0.1/\ns3cret", "without spaces"),
        (f"json://10.0.0.1/{'s3cret' * 500}", "without spaces"),
        ("json:10.0.0.1/s3cret", "expected a URL, such as"),
        ("json://me:s3cret/x", "names no host"),
        ("matrix://s3cret", "names no host"),
        ("workflows://10.0.0.1/a/s3cret/?template=/etc/s3cret", "the option template is not allowed"),
        ("mailto://example.org?pgp=yes&PGPKey=/etc/s3cret", "the option pgp is not allowed"),
        ("workflow://10.0.0.1/a/s3cret?x=1;template=/etc/s3cret", "the option template is not allowed"),
        ("workflow://10.0.0.1/a/s3cret?x;%74emplate%20=/etc/s3cret", "the option template is not allowed"),
        ("workflow://10.0.0.1/a/s3cret?template;", "the option template is not allowed"),
        ("rocket://s3cret/s3cret@localhost", "127.0.0.1 is an address of this machine"),
        ("json://no-such-host.invalid/s3cret", "the name no-such-host.invalid is not known"),
        ("json://localhost/s3cret", "is an address of this machine"),
        ("json://LOCALHOST/s3cret", "is an address of this machine"),
        ("json://2130706433/s3cret", "127.0.0.1 is an address of this machine"),
        ("json://0x7f.1/s3cret", "127.0.0.1 is an address of this machine"),
        ("json://0/s3cret", "0.0.0.0 is an address of this machine"),
        ("mailto://me:s3cret@example.org?smtp=localhost", "is an address of this machine"),
        ("json://10.0.0.1@127.0.0.1/s3cret", "127.0.0.1 is an address of this machine"),
    ],
)
def test_what_is_refused_says_why_and_no_secret(url: str, text: str) -> None:
    with pytest.raises(ChannelError, match=text) as caught:
        check_url(url, allow_local=False)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "172.16.5.5", "192.168.1.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2001:4860:4860::8888", "fec0::1"],
)
def test_networks_are_allowed_private_ones_too(address: str) -> None:
    assert is_allowed(address, allow_local=False)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "169.254.1.1", "169.254.169.254", "224.0.0.1"),
        *("255.255.255.255", "240.0.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "ff02::1", "fd00:ec2::254", "fd00:ec2::254%1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    ],
)
def test_this_machine_and_its_surroundings_only_where_that_is_permitted(address: str) -> None:
    assert not is_allowed(address, allow_local=False)
    assert is_allowed(address, allow_local=True)


def test_what_is_no_address_is_never_allowed() -> None:
    assert not is_allowed("localhost", allow_local=True)
    assert not is_allowed("/run/socket", allow_local=True)


def test_one_bad_address_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (each, 0)) for each in ("10.0.0.1", "127.0.0.1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_args, **_more: found)
    with pytest.raises(ChannelError, match=r"127\.0\.0\.1 is an address"):
        check_host("two.example.org", allow_local=False)


def test_the_list_of_services_has_none_that_runs_or_writes() -> None:
    dangerous = {"exec", "syslog", "dbus", "qt", "kde", "glib", "gnome", "macosx", "windows", "file", "form", "vapid"}
    assert not dangerous & set(SCHEMES)


def test_a_page_of_a_service_is_taken_as_it_is() -> None:
    assert target("https://prod-1.westeurope.logic.azure.com:443/workflows/a?sig=b").service is SCHEMES["workflows"]


def test_retries_come_ever_later_but_not_later_than_half_an_hour() -> None:
    for chance in (0.0, 0.5, 1.0):
        waits = [retry_after(number, chance) for number in range(1, 100)]
        assert waits == sorted(waits)
        assert FIRST_RETRY <= waits[0] <= FIRST_RETRY * 1.25
        assert LAST_RETRY * 0.75 <= waits[-1] <= LAST_RETRY
    assert retry_after(3, 0.1) < retry_after(3, 0.9)


# --- options as Apprise reads them ------------------------------------------------------------------------------------

_PIECES = st.sampled_from([*"&;=+ %aA", "%26", "%3B", "%3d", "%2574", "template", "TEMPLATE", "%74emplate", "pgp", "ä"])


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_no_option_that_apprise_reads_is_missed(text: str) -> None:
    qsd = parse.parse_qsd(text)["qsd"]  # type: ignore[no-untyped-call]
    assert channels._options(text) == qsd
    if not text.isprintable() or " " in text:
        return
    read = REFUSED_OPTIONS & target(f"workflow://example.org/a/b?{text}").options
    assert read == REFUSED_OPTIONS & set(qsd)


# --- this machine's own addresses -------------------------------------------------------------------------------------


def test_addresses_of_this_machine_are_its_own_and_others_are_not() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address but its own loopback")
        mine = asking.getsockname()[0]
    assert is_own(mine)
    assert not may_send(mine, allow_local=False)
    assert not may_send(f"::ffff:{mine}", allow_local=False)
    assert may_send(mine, allow_local=True)
    with pytest.raises(ChannelError, match="is an address of this machine"):
        check_host(mine, allow_local=False)


@pytest.mark.parametrize("address", ["203.0.113.9", "10.99.99.99", "2001:db8:ffff::1", "255.255.255.255", "nonsense"])
def test_what_is_elsewhere_or_nowhere_is_not_an_own_address(address: str) -> None:
    assert not is_own(address)


# --- what is too long for a service -----------------------------------------------------------------------------------


def test_a_message_that_is_too_long_loses_lines_and_says_so_but_not_its_rule_and_link() -> None:
    body = (
        "\n".join(f"Screen {n}: since 2026-05-04 12:00 UTC" for n in range(20)) + "\n\nRule: Black\nhttps://a.example/"
    )
    short = shortened(body, NOTE, lambda text: len(text) <= 200)
    assert short.splitlines()[:2] == body.splitlines()[:2]
    assert short.endswith(f"UTC\n{NOTE}\n\nRule: Black\nhttps://a.example/")
    assert shortened(body, NOTE, lambda _text: True) == body


def test_a_line_that_is_too_long_by_itself_is_cut() -> None:
    assert shortened("x" * 500, NOTE, lambda text: len(text) <= 100) == "x" * 89 + "\n" + NOTE


@given(st.text("ab\n<ä", max_size=300), st.integers(20, 300))
def test_what_is_shortened_fits(body: str, room: int) -> None:
    short = shortened(body, NOTE, lambda text: len(text.encode()) <= room)
    assert len(short.encode()) <= room
    assert short == body or NOTE in short
