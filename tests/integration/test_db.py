"""How connections to PostgreSQL are made: a server that went dark is noticed within seconds."""

import socket
from typing import Any

from infoscreen_server import db
from infoscreen_server.live_signal import PostgresWaker, open_waker
from parts.postgres import Postgres

WANTED = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}


def options(driver: Any) -> dict[str, int]:
    """Of the socket itself, as the kernel has them."""
    with socket.fromfd(driver.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as copy:
        assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        return {name: copy.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in WANTED}


def test_a_host_that_loses_power_is_noticed(postgres: Postgres) -> None:
    engine = db.make_engine(postgres.new_database())
    with engine.connect() as connection:
        assert options(connection.connection.driver_connection) == WANTED
    waker = open_waker(engine)
    assert isinstance(waker, PostgresWaker)
    try:
        assert options(waker._driver) == WANTED
    finally:
        waker.close()
        engine.dispose()
