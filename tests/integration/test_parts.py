"""The parts themselves: a broker that can be killed and started again, a database that answers."""

import psycopg

from parts.broker import Broker
from parts.postgres import Postgres
from parts.wait import answers


def test_a_killed_broker_starts_again_on_the_same_port(broker: Broker) -> None:
    broker.kill()
    assert not answers(broker.port)
    broker.start()
    assert answers(broker.port)


def test_a_new_postgresql_database_is_empty(postgres: Postgres) -> None:
    url = postgres.new_database().replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert row == (0,)
