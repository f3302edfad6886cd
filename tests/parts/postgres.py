"""A PostgreSQL cluster of its own on a free port; PostgreSQL refuses to run as root, so root hands it to `postgres`."""

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from infoscreen_server.db import upgrade
from parts.wait import answers, free_port, wait_for


def _bin() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    assert found, "PostgreSQL is not installed: apt install postgresql"
    return found[-1]


class Postgres:
    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.directory = directory
        self.data = directory / "pg"
        self.databases = 0
        self.is_ready = False

    def _as_owner(self, *argv: str | Path) -> list[str]:
        prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        return [*prefix, *map(str, argv)]

    def start(self) -> "Postgres":
        if not self.data.exists():
            self.data.mkdir(parents=True)
            if os.getuid() == 0:
                shutil.chown(self.data, "postgres", "postgres")
                self._open_the_way()
            initdb: list[str | Path] = [
                _bin() / "initdb",
                "-D",
                self.data,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "-N",
            ]
            subprocess.run(self._as_owner(*initdb, "-U", "postgres"), check=True, capture_output=True, cwd="/")
        options = f"-p {self.port} -k {self.data} -c listen_addresses=127.0.0.1 -c shared_buffers=256MB"
        self._ctl("start", "-o", options, "-l", str(self.data / "log"))
        wait_for(lambda: answers(self.port), "PostgreSQL answers")
        return self

    def _open_the_way(self) -> None:
        """Every folder above must let the other user pass; another test session may have closed one again."""
        for folder in self.data.parents:
            if folder in (Path("/"), Path("/tmp")):
                break
            folder.chmod(folder.stat().st_mode | 0o011)

    def _ctl(self, verb: str, *more: str) -> None:
        if os.getuid() == 0:
            self._open_the_way()
        command = self._as_owner(_bin() / "pg_ctl", "-D", self.data, "-w", verb, *more)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def stop(self, mode: str = "fast") -> None:
        self._ctl("stop", "-m", mode)

    def new_database(self) -> str:
        """The DATABASE_URL of a new, empty database."""
        self.databases += 1
        return self._create(f"infoscreen_{self.databases}", "template1")

    def new_ready_database(self) -> str:
        """As `new_database`, with the server's tables: a copy of one that was migrated once."""
        if not self.is_ready:
            upgrade(self._create("infoscreen_ready", "template1"))
            self.is_ready = True
        self.databases += 1
        return self._create(f"infoscreen_{self.databases}", "infoscreen_ready")

    def _create(self, name: str, template: str) -> str:
        self._sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def drop(self, database_url: str) -> None:
        """Ends who still uses it, too. Each takes 9 MB at least: a whole run would leave more than ten gigabytes."""
        self._sql(f"DROP DATABASE {database_url.rpartition('/')[2]} WITH (FORCE)")

    def _sql(self, statement: str) -> None:
        psql = [_bin() / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-qc", statement]
        subprocess.run([*map(str, psql)], check=True)

    def __enter__(self) -> "Postgres":
        return self.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop("immediate")
