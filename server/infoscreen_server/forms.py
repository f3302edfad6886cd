"""What all routes take and give in the same way: parameters that are checked alike, answers, and their document."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from infoscreen_server import fleet, labels, queries
from infoscreen_shared.messages import WireError, parse_timestamp
from infoscreen_shared.topics import is_uuid

DEFAULT_LIMIT, MAX_LIMIT = 50, 500

# --- what comes in ----------------------------------------------------------------------------------------------------


def _uuid(value: object) -> object:
    folded = value.lower() if isinstance(value, str) else value
    if not isinstance(folded, str) or not is_uuid(folded):
        raise ValueError("expected a uuid")
    return folded


def _time(value: object) -> datetime:
    # A plus sign that was not percent-encoded arrives as a space.
    text = value.replace(" ", "+") if isinstance(value, str) and "T" in value else value
    try:
        return parse_timestamp(text)
    except WireError:
        raise ValueError("expected an ISO 8601 time") from None


def _place(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected the `next` of an earlier answer")
    queries.Cursor.parse(value)
    return value


Uuid: TypeAlias = Annotated[str, BeforeValidator(_uuid)]
Moment: TypeAlias = Annotated[datetime, BeforeValidator(_time)]
Place: TypeAlias = Annotated[str, BeforeValidator(_place)]
"""Text that queries.Cursor can read."""


class ClientPath(BaseModel):
    uuid: Uuid = Field(description="uuid of the client")


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`?level=&limit=` is what a form sends whose fields were left empty."""
        return {name: value for name, value in values.items() if value not in ("", [""])}


class PageQuery(Query):
    """Of a list that is read newest first."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    before: Place | None = Field(None, description="`next` of the page before, for older ones")

    @property
    def cursor(self) -> queries.Cursor | None:
        return None if self.before is None else queries.Cursor.parse(self.before)


class FleetQuery(Query):
    """Of a list of clients, which may be some of them."""

    state: fleet.State | None = Field(None, description="as the pages filter by it; `problem`: needs someone")
    tag: str | None = Field(None, max_length=labels.MAX_TAG)
    location: str | None = Field(None, max_length=labels.MAX_NAME)
    q: str = Field(
        "",
        max_length=fleet.MAX_TEXT,
        description="text in name, hostname, uuid, location or process, without regard to case; no wildcards",
    )

    @property
    def wanted(self) -> fleet.Wanted:
        return fleet.Wanted(self.state, self.tag, self.location, self.q)


# --- what goes out ----------------------------------------------------------------------------------------------------


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    error: str


Responses: TypeAlias = dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None]
TOKEN: list[dict[str, list[Any]]] = [{"token": []}]
"""The document's word for a route that asks for a token."""


def answers(model: type[BaseModel] | dict[Any, Any], *problems: int, status: int = 200) -> Responses:
    """A route's answers for the document: `model`, what every guarded route may say, and these."""
    return {status: model, **dict.fromkeys((400, 401, 403, *problems, 503), Problem)}
