"""Request bodies against Microsoft's own schemas, more strictly than Azure: nothing unknown is taken."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator
from jsonschema.exceptions import ValidationError

from cloudrun.sim.azure.wire import ApiError, Body

_FOLDER = Path(__file__).with_name("schemas")


def check(schema: str, body: Body, *, partial: bool = False) -> None:
    """Raises ApiError where the body is none that Azure knows: misspelt, of a wrong type, incomplete.

    schema is FILE:KIND, "network:virtualNetworks/subnets". partial (a PATCH): what is left out is not missed.
    """
    errors = [
        error
        for error in _validator(schema).iter_errors(body)
        if not (partial and error.validator == "required")
    ]
    if not errors:
        return
    first = max(errors, key=lambda error: len(error.absolute_path))
    raise ApiError("InvalidRequestContent", _explain(first), 400)


@functools.cache
def _validator(schema: str) -> Any:
    name, _, kind = schema.partition(":")
    document = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Draft4Validator({**document["kinds"][kind], "definitions": document["definitions"]})


def _explain(error: ValidationError) -> str:
    path = ".".join(str(part) for part in error.absolute_path) or "the resource"
    if error.validator == "additionalProperties":
        unknown = sorted(set(error.instance) - set(error.schema.get("properties", {})))
        return (
            "The request content was invalid and could not be deserialized: "
            f"Could not find member '{', '.join(unknown)}' on object at path '{path}'."
        )
    return f"The request content was invalid and could not be deserialized: {error.message} at path '{path}'."
