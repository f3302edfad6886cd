"""The web application in this process, on a database with tables, and a token for each role."""

from datetime import UTC, datetime
from typing import Any

from flask.testing import FlaskClient
from jinja2.bccache import Bucket, BytecodeCache
from sqlalchemy import Engine

from infoscreen_server.accounts import add_token
from infoscreen_server.app import create_app
from infoscreen_server.config import ServerConfig
from infoscreen_server.context import Parts
from infoscreen_server.db import upgrade
from infoscreen_server.models import TokenRole
from infoscreen_shared.messages import timestamp_text

UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"
OTHER = "11111111-2222-4333-8444-555555555555"
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


class _Compiled(BytecodeCache):
    """The templates as compiled by the first application: each further one would do it again."""

    def __init__(self) -> None:
        self.templates: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self.templates:
            bucket.bytecode_from_string(self.templates[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.templates[bucket.key] = bucket.bytecode_to_string()


_COMPILED = _Compiled()


class Api:
    """`now` is the application's time; tests move it by hand."""

    def __init__(self, database_url: str, **settings: Any) -> None:
        upgrade(database_url)
        self.now = NOW
        self.app = create_app(ServerConfig(database_url=database_url, **settings), lambda: self.now)
        self.app.jinja_env.bytecode_cache = _COMPILED
        found: Parts = self.app.extensions["infoscreen"]
        self.engine: Engine = found.engine
        self.client: FlaskClient = self.app.test_client()
        self.tokens: dict[str, str] = {}

    def token(self, role: TokenRole, client_uuid: str | None = None) -> str:
        name = f"{role} {client_uuid or ''}".strip()
        if name not in self.tokens:
            self.tokens[name] = add_token(self.engine, name, role, now=self.now, client_uuid=client_uuid)
        return self.tokens[name]

    def get(self, path: str, role: TokenRole = TokenRole.ADMIN, **more: Any) -> Any:
        return self.client.get(path, headers={"Authorization": f"Bearer {self.token(role)}"}, **more)

    def post(self, uuid: str = UUID, headers: dict[str, str] | None = None, **more: Any) -> Any:
        """To the HTTP door, as the kiosk itself."""
        sent = {"Authorization": f"Bearer {self.token(TokenRole.DEVICE, uuid)}"} | (headers or {})
        return self.client.post(f"/api/ingest/{uuid}/logs", headers=sent, **more)

    def upload(self, picture: bytes, uuid: str = UUID, content_type: str = "image/jpeg", **said: str | None) -> Any:
        """A picture to the HTTP door, as the kiosk itself; what is said of it that has to be said, unless given."""
        usual = {"id": "picture-1", "taken_at": timestamp_text(self.now), "kind": "periodic", "status": "OK"}
        return self.client.post(
            f"/api/ingest/{uuid}/screenshots",
            query_string={name: value for name, value in (usual | said).items() if value is not None},
            headers={"Authorization": f"Bearer {self.token(TokenRole.DEVICE, uuid)}"},
            data=picture,
            content_type=content_type,
        )

    def close(self) -> None:
        self.app.extensions["infoscreen_live"].close()
        self.engine.dispose()
