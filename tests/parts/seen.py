"""A kiosk whose screen is looked at: a real compositor, a real player on it, the capture helper, the agent."""

import subprocess
from pathlib import Path
from typing import Any

from parts.agent import COMMAND, Agent
from parts.capture import ENTRY
from parts.screens import PYTHON, USER, Screen

LOOKING: dict[str, Any] = {
    "fast": True,
    "settle_s": 0.5,
    "interval_s": 0.3,
    "still_s": 0.3,
    "confirm_s": 0.1,
    "span_s": 0.5,
}
"""A look about every second; three that agree take two seconds."""


class SeenKiosk:
    """An agent, a capture helper of the screen's user, and a player that the agent starts on the screen."""

    def __init__(self, folder: Path, screen: Screen, code: Path, **settings: Any) -> None:
        """`settings` of the agent, besides player and screen."""
        self.screen, self.code, self.settings = screen, code, settings
        self.door = screen.run / "mpv.sock"
        self.agent = Agent(folder)
        self.helper: subprocess.Popen[bytes] | None = None

    def start(self, *what: object, kind: str = "video", **looking: Any) -> "SeenKiosk":
        """mpv, with a door, plays something."""
        options = ["--really-quiet", "--ao=null", "--vo=wlshm", "--fullscreen", "--loop-file=inf"]
        argv = ["mpv", *options, "--keepaspect=no", f"--input-ipc-server={self.door}", *map(str, what)]
        return self.start_as("mpv", argv, kind, **looking)

    def start_as(self, process: str, argv: list[str], kind: str, **looking: Any) -> "SeenKiosk":
        player = {"process": process, "type": kind, "user": USER, "restart": argv, "event_id": 42}
        shown = {name: value for name, value in self.screen.environment.items() if name != "PATH"}
        self.agent.configure(player=player | {"environment": shown}, screen=looking, **self.settings)
        self.agent.start()
        self.agent.socket.chmod(0o666)
        self.look_out()
        return self

    def look_out(self) -> None:
        self.helper = self.screen.start(PYTHON, "-c", ENTRY, "--socket", self.agent.socket, PYTHONPATH=str(self.code))

    def shows(self, status: str, reason: str, within_s: float = 20) -> dict[str, Any]:
        """Waits until the agent says so of the picture."""

        def seen() -> dict[str, Any]:
            found: dict[str, Any] = self.agent.status()["screen"]
            return found if (found["status"], found["reason"]) == (status, reason) else {}

        return self.agent.explained(seen, f"the screen is {status} ({reason})", within_s)

    def call(self, *argv: str) -> str:
        command = [*COMMAND, *argv, "--config", str(self.agent.config)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        if self.agent.process is not None:
            # Its own children would not end with it.
            self.agent.client.clear()
            self.agent.kill()
        self.end_player()
        self.screen.clear()

    def end_player(self) -> None:
        subprocess.run(["pkill", "-KILL", "-f", f"input-ipc-server={self.door}"], check=False)

    def evidence(self) -> list[Path]:
        return sorted((self.agent.state_dir / "evidence").glob("2*"))
