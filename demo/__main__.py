"""`./run demo [--once]`: starts everything, says what to try, plays the story, and leaves nothing behind."""

import argparse
import signal
import subprocess
import sys
import time
from types import FrameType

from demo.screen import Screen
from demo.stage import ROOT, Stage, StepError, video
from demo.story import Story


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the story: 0 if all of it went well")
    once: bool = parser.parse_args().once
    # SIGINT too: a shell starts what runs in its background with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    screen = Screen()
    stage: Stage | None = None
    try:
        stage = Stage()
        _show(stage, screen, once=once)
    except (StepError, OSError, subprocess.SubprocessError) as problem:
        screen.failure(str(problem))
        if stage is not None:
            screen.failure(f"the logs of all parts are in {stage.keep_logs().relative_to(ROOT)}/")
        return 1
    finally:
        # Whoever loses patience now would leave processes behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if stage is not None:
            stage.close()
    return 0


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _show(stage: Stage, screen: Screen, *, once: bool) -> None:
    screen.title("Infoscreen: one kiosk, one broker and one server on this machine")
    video()
    stage.start_broker()
    stage.start_server()
    token = stage.make_token()
    stage.start_screen()
    stage.start_kiosk()
    screen.fact("server", f"{stage.api}   database {stage.database}")
    screen.fact("broker", stage.broker_url)
    screen.fact("kiosk", f"{stage.uuid}   mpv on display {stage.display} as {stage.user}")
    if not once:
        screen.title("The dashboard")
        print(f"  {stage.make_link()}")
        print("  In a browser; the link is good once, for you to choose a name and a password")
        screen.title("Try it in another terminal")
        print(f"  curl -s -H @{token} {stage.api}/api/clients")
        print(f"  curl -s -H @{token} '{stage.api}/api/client-logs/{stage.uuid}/logs?limit=5'")
        print(f"  ./run agent status --config {stage.directory}/agent.toml")
    screen.title("The story")
    Story(stage, screen).play()
    if once:
        return
    screen.title("All parts stay up; Ctrl-C ends them and removes everything")
    while True:
        stage.check()
        time.sleep(0.5)


sys.exit(main())
