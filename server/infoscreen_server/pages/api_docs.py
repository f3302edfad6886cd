"""The API in words: the OpenAPI document as a page that can be read and linked to."""

import json
import re
from typing import Any

from flask import Blueprint, current_app, render_template
from flask_openapi3.openapi import OpenAPI
from markupsafe import Markup

from infoscreen_server.accounts import Access
from infoscreen_server.context import access, parts

blueprint = Blueprint("api_docs", __name__)

Json = dict[str, Any]


@blueprint.app_template_filter("ticks")
def ticks(text: str) -> Markup:
    """`name` as code, the way docstrings write it."""
    pieces = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(each) if n % 2 else each for n, each in enumerate(pieces))


@blueprint.get("/api-reference")
@access(Access.USER_OR_HIGHER)
def page() -> str:
    assert isinstance(current_app, OpenAPI)
    document: Json = current_app.api_doc
    schemas: Json = document.get("components", {}).get("schemas", {})
    rules = _rules()
    routes = [
        _route(verb, path, operation, rules, schemas)
        for path, operations in sorted(document["paths"].items())
        for verb, operation in operations.items()
    ]
    address = parts().config.public_url or "https://screens.example.org"
    return render_template("api_docs.html", routes=routes, address=address)


def _rules() -> dict[tuple[str, str], str]:
    """Whom each route is for, by method and path as the document spells it."""
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)): str(view.access)
        for rule in current_app.url_map.iter_rules()
        for method in rule.methods or ()
        if hasattr(view := current_app.view_functions[rule.endpoint], "access")
    }


def _route(verb: str, path: str, operation: Json, rules: dict[tuple[str, str], str], schemas: Json) -> Json:
    method = verb.upper()
    bodies = operation.get("requestBody", {}).get("content", {})
    return {
        "id": operation["operationId"],
        "method": method,
        "path": path,
        "summary": operation.get("summary", ""),
        "description": operation.get("description", ""),
        "access": rules[method, path],
        "parameters": [_parameter(each, schemas) for each in operation.get("parameters", ())],
        "bodies": [(kind, _outline(body.get("schema", {}), schemas)) for kind, body in bodies.items()],
        "answers": [_answer(status, answer, schemas) for status, answer in sorted(operation["responses"].items())],
    }


def _parameter(parameter: Json, schemas: Json) -> Json:
    schema = parameter.get("schema", {})
    default = schema.get("default")
    return {
        "name": parameter["name"],
        "place": parameter["in"],
        "required": parameter.get("required", False),
        "type": type_of(schema, schemas),
        "default": None if default in (None, "", []) else json.dumps(default),
        "text": parameter.get("description") or schema.get("description", ""),
    }


def _answer(status: str, answer: Json, schemas: Json) -> Json:
    contents = [(kind, content.get("schema", {})) for kind, content in answer.get("content", {}).items()]
    return {
        "status": status,
        "text": answer.get("description", ""),
        "contents": [(kind, _outline(schema, schemas)) for kind, schema in contents],
    }


def type_of(schema: Json, schemas: Json) -> str:
    """In a few words.

    >>> type_of({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}, {})
    'date-time or null'
    >>> type_of({"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 9}}, {})
    'list of integer 1 … 9'
    """
    if "$ref" in schema:
        return type_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if any(word in schema for word in ("anyOf", "oneOf", "allOf")):
        parts = next(schema[word] for word in ("anyOf", "oneOf", "allOf") if word in schema)
        return " or ".join(type_of(each, schemas) for each in parts)
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}), schemas)}"
    name = str(schema.get("format") or schema.get("type") or "anything")
    low, high = schema.get("minimum"), schema.get("maximum")
    return f"{name} {low:g} … {high:g}" if low is not None and high is not None else name


def _outline(schema: Json, schemas: Json) -> str:
    """A JSON value as it looks, with types in place of values."""
    return json.dumps(_shape(schema, schemas, 0), indent=2, ensure_ascii=False) if schema else ""


def _shape(schema: Json, schemas: Json, depth: int) -> Any:
    if "$ref" in schema:
        return _shape(schemas[schema["$ref"].rpartition("/")[2]], schemas, depth)
    if depth < 6 and "properties" in schema:
        return {name: _shape(each, schemas, depth + 1) for name, each in schema["properties"].items()}
    if depth < 6 and schema.get("type") == "array":
        return [_shape(schema.get("items", {}), schemas, depth + 1)]
    if depth < 6 and isinstance(schema.get("additionalProperties"), dict):
        return {"…": _shape(schema["additionalProperties"], schemas, depth + 1)}
    return type_of(schema, schemas)
