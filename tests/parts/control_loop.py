"""The agent's side of the control socket without the agent: the real server in a small loop of its own."""

import os
import selectors
import threading
from pathlib import Path
from types import TracebackType

from infoscreen_device.control import (
    ControlServer,
    Request,
    draft_from_request,
    expectation_from_request,
)
from infoscreen_device.core.model import Draft, Expectation
from infoscreen_device.settings import ControlConfig

STATUS = {"version": "0.1.0", "uuid": "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11", "enabled": True}


class ControlLoop:
    def __init__(self, path: Path, group: str | None = None) -> None:
        self.path = path
        self.server = ControlServer(ControlConfig(path, group))
        self.requests: list[Request] = []
        self.expectations: list[Expectation | None] = []
        self.drafts: list[Draft] = []
        self.status: dict[str, object] = STATUS
        self.unanswered = False
        """True: every answer is left out."""
        self.refuse = False
        """True: nothing is taken."""
        self.error: BaseException | None = None
        self._selector = selectors.DefaultSelector()
        self._wake = os.pipe()
        self._calls: list[tuple[Expectation, int]] = []
        self.asked: list[bool] = []
        self._thread = threading.Thread(target=self._run)

    def start(self) -> "ControlLoop":
        self.server.open()
        self.server.register(self._selector)
        self._selector.register(self._wake[0], selectors.EVENT_READ)
        self._thread.start()
        return self

    def ask_restart(self, expectation: Expectation, request_id: int) -> None:
        self._calls.append((expectation, request_id))
        os.write(self._wake[1], b"a")

    def stop(self) -> None:
        os.write(self._wake[1], b"q")
        self._thread.join(10)
        self.server.close()
        self._selector.close()
        for end in self._wake:
            os.close(end)
        if self.error is not None:
            raise self.error

    def of(self, op: str) -> list[Request]:
        return [request for request in self.requests if request.op == op]

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001 - told in stop()
            self.error = error

    def _turn(self) -> bool:
        for key, _ in self._selector.select():
            if key.fd == self._wake[0]:
                if os.read(key.fd, 1) == b"q":
                    return False
                self.asked.append(self.server.ask_restart(*self._calls.pop(0)))
                continue
            for request in self.server.handle(key):
                self.requests.append(request)
                if not self.unanswered:
                    self._answer(request)
        return True

    def _answer(self, request: Request) -> None:
        answer: dict[str, object] = {"ok": True}
        try:
            if self.refuse:
                raise ValueError("refused")
            if request.op == "expect":
                self.expectations.append(expectation_from_request(request.body, request.peer, os.geteuid()))
            elif request.op == "clear":
                self.expectations.append(None)
            elif request.op == "log":
                self.drafts.append(draft_from_request(request.body))
            elif request.op == "status":
                answer |= self.status
        except ValueError as error:
            answer = {"ok": False, "error": str(error)}
        request.reply(answer)

    def __enter__(self) -> "ControlLoop":
        return self.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()
