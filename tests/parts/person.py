"""Someone at a browser without a browser: cookies, forms with their CSRF token, redirects that are looked at."""

import re
from html import unescape
from typing import Any

from werkzeug.test import TestResponse

from infoscreen_server.accounts import add_user
from infoscreen_server.models import Role
from parts.api import Api

PASSWORD = "correct horse battery"


class Person:
    """With a cookie jar of their own, at `address`."""

    def __init__(self, api: Api, address: str = "192.0.2.1") -> None:
        self.api = api
        self.address = address
        self.client = api.app.test_client()

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.client.get(path, environ_base={"REMOTE_ADDR": self.address}, **more)

    def csrf(self, path: str) -> str:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.get(path).text)
        assert found is not None, f"{path} has no form"
        return found[1]

    def post(self, path: str, form_at: str | None = None, **fields: str) -> TestResponse:
        """Send a form that stands on the page `form_at`, by default on `path` itself."""
        data = {"csrf_token": self.csrf(form_at or path), **fields}
        return self.client.post(path, data=data, environ_base={"REMOTE_ADDR": self.address})

    def sign_in(self, name: str, password: str = PASSWORD) -> TestResponse:
        return self.post("/sign-in", name=name, password=password)

    def is_signed_in(self) -> bool:
        return self.get("/account").status_code == 200


def text_of(response: TestResponse) -> str:
    """What is to be read of a page, without its tags."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", response.text)))


def with_user(api: Api, name: str, role: Role = Role.USER) -> Person:
    """A new user, signed in."""
    add_user(api.engine, name, PASSWORD, role, api.now)
    person = Person(api)
    assert person.sign_in(name).status_code == 303
    return person
