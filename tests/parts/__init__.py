"""Real parts for tests: a broker, a database server, a condition to wait for."""
