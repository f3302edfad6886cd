"""gunicorn inside the command: one master, workers with many light threads (gevent), bounds on what a client may hold.

gevent, because open streams must not use up the threads that pages need. What the application does is for app.py, which
is imported in the worker only: gevent has to patch the standard library before anything of it is bound.
"""

from pathlib import Path
from typing import Any

import gevent
from gunicorn.app.base import BaseApplication
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from infoscreen_server.config import ServerConfig
from infoscreen_server.supervise import die_with

STALLED_AFTER = 30.0
"""Seconds that a client may let one read or write of its connection stand still, body and streams included."""


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        # GeventWorker's own sets the socket to wait for ever.
        client.settimeout(STALLED_AFTER)
        AsyncWorker.handle(self, listener, client, addr)

    def handle_exit(self, sig: int, frame: Any) -> None:
        # Streams would go on until they are killed. Not in the handler itself: whom it interrupts may hold a lock.
        application = getattr(self, "wsgi", None)
        if application is not None:
            gevent.spawn(application.extensions["infoscreen_live"].close)
        super().handle_exit(sig, frame)


class Web(BaseApplication):  # type: ignore[misc]
    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        super().__init__(prog="infoscreen-server")

    def load_config(self) -> None:
        for name, value in settings(self.config).items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from infoscreen_server.app import create_app

        return create_app(self.config)


def settings(config: ServerConfig) -> dict[str, Any]:
    """gunicorn's settings, by its names."""
    host = f"[{config.listen_host}]" if ":" in config.listen_host else config.listen_host
    memory = Path("/dev/shm")  # noqa: S108  # a worker's sign of life belongs in memory, never on a card
    return {
        "bind": f"{host}:{config.listen_port}",
        "workers": config.web_workers,
        "worker_class": Worker,
        "worker_connections": config.web_connections,
        "worker_tmp_dir": str(memory) if memory.is_dir() else None,
        "post_fork": _post_fork,
        "proc_name": "infoscreen-server",
        "timeout": 30,
        # `run` has to be gone within 3 s.
        "graceful_timeout": 2,
        # Also the time in which a request's head has to come in.
        "keepalive": 5,
        "limit_request_fields": 50,
        "loglevel": "warning",
        "accesslog": None,
    }


def _post_fork(arbiter: Any, _worker: Any) -> None:
    die_with(arbiter.pid)


def serve(config: ServerConfig) -> None:
    """Serve until SIGTERM; ends the process (SystemExit)."""
    Web(config).run()
