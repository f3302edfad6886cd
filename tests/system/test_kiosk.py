"""The agent as apt installs it, in booted Debian 12 and 13: its service, what it may restart, how it is kept alive."""

import json
import re
import time

import pytest

from parts.figures import Figure
from parts.machine import ROOT, Machine
from parts.wait import wait_for

AGENT = "infoscreen-watchdog.service"
PLAYER_UNIT = """[Unit]
StartLimitIntervalSec=0
[Service]
User=nobody
ExecStart=/usr/bin/sleep infinity
"""
CONFIG = """[broker]
url = ""
[player]
process = "sleep"
event_id = 42
type = "video"
restart = "unit:player.service"
[restart]
backoff_first_s = 0.2
backoff_cap_s = 0.5
slow_retry_s = 2
stable_s = 2
stopped_after_s = 1
start_timeout_s = 5
[clock]
trusted = true
[outbox]
deadline_s = { error = 0, warn = 0, info = 0, debug = 0 }
"""


def value(machine: Machine, unit: str, name: str) -> str:
    return machine.ask(f"systemctl show --property={name} --value {unit}")


def records(machine: Machine, code: str) -> list[dict[str, object]]:
    lines = machine.ask("infoscreen-watchdog outbox export").splitlines()
    return [record for line in lines if (record := json.loads(line)).get("code") == code]


def said(machine: Machine, code: str, count: int = 1) -> list[dict[str, object]]:
    return wait_for(lambda: found if len(found := records(machine, code)) >= count else [], f"{count} {code}", 40, 0.3)


@pytest.fixture
def player(kiosk: Machine) -> Machine:
    """The agent looks after a unit of another user, with a fresh budget and an empty outbox."""
    kiosk.run(f"systemctl stop {AGENT}; rm -f /var/lib/infoscreen-watchdog/outbox* /var/lib/infoscreen-watchdog/w*")
    kiosk.write("/etc/systemd/system/player.service", PLAYER_UNIT)
    kiosk.write("/etc/infoscreen-watchdog/config.toml", CONFIG)
    kiosk.run(f"systemctl daemon-reload; systemctl restart player.service {AGENT}")
    running(kiosk)
    return kiosk


def running(machine: Machine, within_s: float = 40) -> int:
    """Waits until the agent sees the unit's process running; its pid."""

    def seen() -> int:
        status = json.loads(machine.ask("infoscreen-watchdog status --json") or "{}")
        pid = status.get("player", {}).get("pid")
        runs = status.get("player", {}).get("status") == "running"
        return int(pid) if runs and str(pid) == value(machine, "player.service", "MainPID") else 0

    return wait_for(seen, "the player runs and is seen", within_s, 0.2)


def test_after_install_it_runs_and_says_what_to_do_next(kiosk: Machine) -> None:
    assert value(kiosk, AGENT, "ActiveState") == "active"
    assert kiosk.ask("systemctl --failed --no-legend") == ""
    kiosk.until(f"systemctl status {AGENT} | grep 'Status:.*expect'", "the status line tells the next step")
    assert kiosk.run("stat -c '%a %U %G' /etc/infoscreen-watchdog/config.toml") == "640 root infoscreen-watchdog"
    assert kiosk.run("stat -c '%a %U' /var/lib/infoscreen-watchdog") == "750 infoscreen-watchdog"
    assert kiosk.run("stat -c '%a %G' /run/infoscreen-watchdog/control.sock") == "660 infoscreen"
    assert kiosk.run(f"ps -o user= -p {value(kiosk, AGENT, 'MainPID')} | cut -c1-10") == "infoscreen"
    kiosk.run("infoscreen-watchdog check-config && infoscreen-watchdog version && infoscreen-player --help")
    kiosk.run("python3 -c 'from infoscreen_device.client import Watchdog; assert Watchdog().status()'")


def test_the_journal_has_fields(player: Machine) -> None:
    first = running(player)
    player.run(f"kill -KILL {first}")
    said(player, "player.crashed")
    found = player.until(f"journalctl -u {AGENT} INFOSCREEN_CODE=player.crashed -o json", "the journal knows the code")
    entry = json.loads(found.splitlines()[-1])
    assert entry["INFOSCREEN_SIGNAL"] == "9"
    assert entry["MESSAGE"] == f"sleep (pid {first}) was killed by signal 9"


def test_a_killed_player_comes_back_by_its_unit(player: Machine) -> None:
    first = running(player)
    player.run(f"kill -KILL {first}")
    wait_for(lambda: running(player) != first, "another one runs", 40)
    (death,) = said(player, "player.crashed")
    assert death["context"]["signal"] == 9  # type: ignore[index]


def test_a_hung_player_comes_back_by_its_unit(player: Machine) -> None:
    """The agent may not kill it; systemd does."""
    first = running(player)
    player.run(f"kill -STOP {first}")
    said(player, "player.stopped")
    wait_for(lambda: running(player) != first, "another one runs", 60)


def test_a_crash_loop_ends_in_slow_retries_and_is_told_once(player: Machine) -> None:
    player.write("/etc/systemd/system/player.service", PLAYER_UNIT.replace("sleep infinity", "sleep 0.3"))
    player.run("systemctl daemon-reload; systemctl restart player.service")
    said(player, "player.gave_up")
    count = len(records(player, "player.restarting"))
    said(player, "player.restarting", count + 2)
    assert len(records(player, "player.gave_up")) == 1
    player.write("/etc/systemd/system/player.service", PLAYER_UNIT)
    player.run("systemctl daemon-reload")
    running(player)


def test_its_user_can_restart_that_unit_and_nothing_else(player: Machine) -> None:
    def as_agent(command: str) -> int:
        own = "setpriv --reuid=infoscreen-watchdog --regid=infoscreen-watchdog --init-groups --no-new-privs"
        return player.done(f"{own} systemctl --no-ask-password {command}").returncode

    assert as_agent("restart player.service") == 0
    for refused in (
        *["stop player.service", "start player.service", "kill player.service", "disable player.service"],
        *["restart dbus.service", "restart systemd-journald.service", "restart player2.service", "reboot", "poweroff"],
        *[
            "restart xplayer.service",
            "restart infoscreen-user-restart@root-x.service",
            "daemon-reload",
            "isolate rescue",
        ],
    ):
        assert as_agent(refused) != 0, refused
    assert value(player, "player.service", "ActiveState") == "active"


def test_a_unit_of_a_users_own_systemd(player: Machine) -> None:
    """As on a desktop image, where the player lives in the session of the kiosk's user."""
    player.run("id kiosk 2>/dev/null || adduser --quiet --disabled-password --gecos '' kiosk")
    player.write("/etc/systemd/user/screen.service", "[Service]\nExecStart=/usr/bin/sleep 12345\n")
    player.run("loginctl enable-linger kiosk; systemctl stop player.service")
    of_kiosk = "systemctl --user --machine=kiosk@"
    player.until(f"{of_kiosk} is-active default.target", "the user's systemd runs")
    player.run(f"{of_kiosk} daemon-reload; {of_kiosk} start screen.service")
    player.write(
        "/etc/infoscreen-watchdog/config.toml",
        CONFIG.replace('restart = "unit:player.service"', 'restart = "user-unit:screen.service"\nuser = "kiosk"'),
    )
    player.run(f"systemctl restart {AGENT}")

    def seen() -> str:
        status = json.loads(player.ask("infoscreen-watchdog status --json") or "{}")["player"]
        pid = player.ask(f"{of_kiosk} show --property=MainPID --value screen.service")
        return pid if status["status"] == "running" and str(status["pid"]) == pid else ""

    first = wait_for(seen, "it is seen", 40, 0.2)
    player.run(f"kill -KILL {first}")
    wait_for(lambda: seen() not in {"", first}, "another one runs", 40, 0.2)
    player.run(f"{of_kiosk} stop screen.service; loginctl disable-linger kiosk")


def test_without_systemd_restarts_there_is_no_rule(player: Machine) -> None:
    rules = "/etc/polkit-1/rules.d/60-infoscreen-watchdog.rules"
    assert "player\\.service" in player.run(f"cat {rules}")
    player.write("/etc/infoscreen-watchdog/config.toml", '[broker]\nurl = ""\n')
    player.run(f"systemctl restart {AGENT}")
    assert player.done(f"test -e {rules}").returncode != 0


def test_stopped_it_is_restarted_by_systemd_and_the_player_does_not_notice(player: Machine, figure: Figure) -> None:
    first, agent = running(player), value(player, AGENT, "MainPID")
    began = time.monotonic()
    player.run(f"kill -STOP {agent}")
    wait_for(lambda: value(player, AGENT, "MainPID") not in {agent, "0"}, "another agent runs", 40, 0.1)
    wait_for(lambda: value(player, AGENT, "ActiveState") == "active", "it is ready", 40, 0.1)
    figure(f"agent stopped to READY again, {player.suite}, s", round(time.monotonic() - began, 1))
    assert running(player) == first


def test_a_blocked_loop_is_noticed_too(player: Machine) -> None:
    """A debugger's grip on the main thread alone: the other threads go on, and the watchdog is not fed all the same."""
    first, agent = running(player), value(player, AGENT, "MainPID")
    before = value(player, AGENT, "NRestarts")
    player.run(f"mkfifo -m 666 /etc/systemd/system/nothing || true; {freeze(agent)}")
    wait_for(lambda: value(player, AGENT, "NRestarts") != before, "systemd restarts it", 60, 0.2)
    assert running(player) == first


def freeze(pid: str) -> str:
    """Stops the main thread by ptrace and holds it for a minute."""
    program = (
        "import ctypes, time\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"assert libc.ptrace(0x4206, {pid}, None, None) == 0, ctypes.get_errno()\n"  # PTRACE_SEIZE
        f"assert libc.ptrace(0x4207, {pid}, None, None) == 0\n"  # PTRACE_INTERRUPT
        "time.sleep(60)\n"
    )
    return f"nohup python3 -c '{program}' >/dev/null 2>&1 &"


def test_a_broken_agent_is_tried_for_ever(player: Machine) -> None:
    """Ever more slowly where systemd knows how, and without a limit after which somebody would have to come."""
    player.write("/etc/infoscreen-watchdog/config.toml", "[broker]\nurl = 5\n")
    player.done(f"systemctl restart {AGENT}")
    wait_for(lambda: int(value(player, AGENT, "NRestarts")) > 6, "more tries than systemd's own limit", 120, 0.5)
    assert player.ask(f"journalctl -u {AGENT} -n 50 | grep broker.url")
    player.write("/etc/infoscreen-watchdog/config.toml", CONFIG)
    running(player, 60)


def test_exposure_and_limits(kiosk: Machine, figure: Figure) -> None:
    last = kiosk.run(f"systemd-analyze security --no-pager {AGENT} | tail -1")
    exposure = float(last.split(":")[1].split()[0])
    figure(f"exposure of infoscreen-watchdog, {kiosk.suite}", exposure)
    assert exposure <= 1.6
    limits = {"MemoryMax": str(160 * 2**20), "TasksMax": "64", "CPUQuotaPerSecUSec": "1s", "WatchdogUSec": "10s"}
    assert {name: value(kiosk, AGENT, name) for name in limits} == limits


def test_what_the_service_takes(player: Machine, figure: Figure) -> None:
    """At rest with a player, by /proc: the kernel gives these containers no memory or CPU controller."""
    running(player)
    pid = value(player, AGENT, "MainPID")

    def cpu_ns() -> int:
        return sum(int(line.split()[0]) for line in player.run(f"cat /proc/{pid}/task/*/schedstat").splitlines())

    time.sleep(5)  # starting is over
    before, began = cpu_ns(), time.monotonic()
    time.sleep(20)
    share = (cpu_ns() - before) / (time.monotonic() - began) / 1e9
    resident = int(player.run(f"grep VmRSS /proc/{pid}/status").split()[1]) / 1024
    figure(f"agent at rest, {player.suite}, % of a core", round(100 * share, 3))
    figure(f"agent at rest, {player.suite}, RSS in MB", round(resident, 1))
    assert share < 0.01
    assert resident < 40


def test_what_an_install_takes(kiosk: Machine, figure: Figure) -> None:
    """On a minimal system with systemd, as debootstrap makes it."""
    for package in ("infoscreen-watchdog", "infoscreen-server"):
        if package == "infoscreen-server" and kiosk.suite == "bookworm":
            continue
        said = kiosk.ask(
            "cp -n /var/lib/apt/lists/_srv_apt_* /var/lib/apt/lists.minbase/;"
            " apt-get -o Dir::State::status=/var/lib/dpkg/status.minbase -o Dir::State::lists=lists.minbase"
            " -o Dir::Etc::sourcelist=/etc/apt/minbase.list -o APT::Sandbox::User=root"
            f" --no-install-recommends --assume-no install {package}"
        )
        newly, size = re.search(r"(\d+) newly installed", said), re.search(r"([\d.]+ .?B) (?:of additional disk)", said)
        assert newly, said
        assert size, said
        figure(f"{package} on minimal {kiosk.suite}", f"{newly[1]} packages, {size[1]}")


def test_the_packages_own_test(kiosk: Machine) -> None:
    """What autopkgtest runs (packaging/debian/tests)."""
    for source, target in (
        ("packaging/etc/infoscreen-watchdog/config.toml", "/etc/infoscreen-watchdog/config.toml"),
        ("packaging/debian/tests/kiosk", "/root/autopkgtest"),
    ):
        kiosk.write(target, (ROOT / source).read_text())
    kiosk.run("sh /root/autopkgtest")
    kiosk.run("systemctl stop autopkgtest-player.service")


def test_units_are_sound(kiosk: Machine) -> None:
    said = kiosk.done("systemd-analyze verify --man=no infoscreen-watchdog.service infoscreen-player@root.service")
    # Debian 12 has systemd 252, which leaves out what it does not know.
    lines = [line for line in said.stderr.splitlines() if "Restart" not in line or kiosk.suite != "bookworm"]
    assert said.returncode == 0
    assert [line for line in lines if "infoscreen" in line] == []
