"""The story: what the product is for, step by step, each step checked against the kernel or the server's database."""

import json
import socket
from datetime import UTC, datetime
from typing import Any

from demo import kernel, ledger
from demo.screen import Screen
from demo.stage import Stage, StepError, wait
from infoscreen_device.client import Watchdog, WatchdogError

RECORDS = 5_000


class Story:
    def __init__(self, stage: Stage, screen: Screen) -> None:
        self._stage = stage
        self._screen = screen
        self._watchdog = Watchdog(str(stage.control), strict=True)

    def play(self) -> None:
        """Raises StepError at the first step that does not come true."""
        try:
            pid = self._the_player_runs()
            self._the_player_is_killed(pid)
            issued = self._the_broker_goes()
            self._the_broker_returns(issued)
        except WatchdogError as error:
            raise StepError(f"the agent does not answer: {error}") from None
        self._stage.check()

    # --- the player ---------------------------------------------------------------------------------------------------

    def _the_player_runs(self) -> int:
        pid = self._player(not_this=None, seconds=60)
        wait(lambda: self._position(pid) > 0, "mpv shows the video")
        wait(lambda: self._status()["broker"]["connected"], "the agent reaches the broker")
        self._screen.step("player", f"mpv plays the video, pid {pid}")
        # The agent's own start of the player counts as a restart until the player has proved stable.
        wait(lambda: self._status()["restarts"]["used"] == 0, "the player counts as stable")
        return pid

    def _the_player_is_killed(self, pid: int) -> None:
        kill = kernel.Kill(pid, self._stage.mpv)
        try:
            kill.watch(seconds=20)
            successor = self._player(not_this=pid, seconds=20)
            latency = kill.latency(successor)
        finally:
            kill.close()
        if latency is None:
            raise StepError(f"the start of pid {successor} was not seen in the kernel's events")
        self._screen.step("player", f"kill -9 {pid}")
        self._screen.step("player", f"dead, and {latency * 1_000:.1f} ms later mpv starts again", good=True)
        wait(lambda: self._position(successor) > 0, "the new mpv shows the video")
        again = kernel.now() - kill.sent
        self._screen.step("player", f"pid {successor} plays the video, {again:.1f} s after the kill", good=True)

    def _player(self, *, not_this: int | None, seconds: float) -> int:
        def running() -> int | None:
            self._stage.check()
            status = self._status()
            if status["restarts"]["gave_up"]:
                raise StepError("the player does not stay up, and the agent has used up its restarts")
            player = status["player"]
            pid: int | None = player["pid"]
            return pid if player["status"] == "running" and pid != not_this else None

        pid = wait(running, "the agent starts the player", seconds)
        assert pid is not None
        return pid

    def _position(self, pid: int) -> float:
        """How far mpv has played, in seconds, by its own word; 0 as long as it does not say or is not `pid`."""
        if self._ask_mpv("pid") != pid:
            return 0
        position = self._ask_mpv("playback-time")
        return position if isinstance(position, float) else 0

    def _ask_mpv(self, name: str) -> object:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(2)
                connection.connect(str(self._stage.directory / "player/mpv.socket"))
                connection.sendall(json.dumps({"command": ["get_property", name], "request_id": 1}).encode() + b"\n")
                for line in connection.makefile():
                    answer = json.loads(line)
                    if answer.get("request_id") == 1 and "error" in answer:
                        return answer.get("data")
        except (OSError, ValueError):
            pass  # not up yet
        return None

    # --- the broker ---------------------------------------------------------------------------------------------------

    def _the_broker_goes(self) -> list[tuple[str, str]]:
        self._stage.stop("broker")
        wait(lambda: not self._status()["broker"]["connected"], "the agent notices it")
        self._screen.step("broker", "stopped")
        levels = ("INFO", "INFO", "INFO", "WARN", "ERROR")
        issued = [(levels[number % len(levels)], f"record {number} of the demo") for number in range(RECORDS)]
        began = kernel.now()
        for level, message in issued:
            self._watchdog.log(level, message, code=ledger.CODE)
        took = kernel.now() - began
        waiting = wait(
            lambda: (pending := self._status()["outbox"]["pending"]) >= RECORDS and pending,
            "the records are in the outbox",
        )
        if found := ledger.stored(self._stage.database, self._stage.uuid):
            raise StepError(f"{found} records are at the server although the broker is away")
        self._screen.step("outbox", f"{RECORDS:,} records logged in {took:.1f} s, {waiting:,} wait on the kiosk")
        return issued

    def _the_broker_returns(self, issued: list[tuple[str, str]]) -> None:
        self._stage.start_broker()
        self._screen.step("broker", "back")
        database, uuid = self._stage.database, self._stage.uuid
        wait(lambda: ledger.stored(database, uuid) >= len(issued), "the server stores all records", 90)
        stored = datetime.now(UTC)
        wait(lambda: self._status()["outbox"]["pending"] == 0, "the server acknowledges all records", 60)
        took = (stored - ledger.answered(database, uuid)).total_seconds()
        count = ledger.count(database, uuid, issued)
        result = f"{count.lost} lost, {count.doubled} doubled"
        if count.lost or count.doubled or count.disordered:
            raise StepError(f"of {len(issued):,} records: {result}, {count.disordered} lanes out of order")
        speed = f"{took:.2f} s, {len(issued) / max(took, 0.001):,.0f} a second"
        self._screen.step("outbox", f"{len(issued):,} records replayed and committed in {speed}", good=True)
        self._screen.step("server", f"{len(issued):,} issued, {len(issued):,} in its database: {result}", good=True)
        self._books_agree()

    def _books_agree(self) -> None:
        """In every lane: issued by the agent = stored by the server."""
        wrong: list[str] = []

        def agree() -> bool:
            outbox = self._status()["outbox"]
            stage = self._stage
            wrong[:] = ledger.disagreements(stage.database, stage.uuid, outbox["lanes"], outbox["epoch"])
            return not wrong

        # The agent may just have issued one more.
        try:
            wait(agree, "", 10)
        except StepError:
            raise StepError(f"the books of agent and server differ: {'; '.join(wrong)}") from None
        self._screen.step("books", "every lane: issued = stored, no gap", good=True)

    def _status(self) -> dict[str, Any]:
        status = self._watchdog.status()
        assert status is not None  # strict: it raises instead
        return status
