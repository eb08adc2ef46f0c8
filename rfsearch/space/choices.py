"""The choices that a space lists, as its file writes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

from rfsearch.choices import Choice, read_choice
from rfsearch.errors import RfsearchError


def _as_choice(body: object) -> Choice:
    """Read a choice of a site, as a ledger writes it."""
    if isinstance(body, Choice):
        return body
    if not isinstance(body, dict):
        raise ValueError(f"a choice is a table of its kind and values. Got {body!r}")
    try:
        return read_choice(body)
    except KeyError as error:
        raise ValueError(f"a choice without a kind has {error}. Got {body!r}") from error
    except RfsearchError as error:
        raise ValueError(str(error).rstrip(".")) from error


def _as_json(choice: Choice) -> dict[str, object]:
    return choice.to_json()


SpaceChoice = Annotated[Choice, PlainValidator(_as_choice), PlainSerializer(_as_json)]
