"""A choice of any kind, read from JSON.

JSON that names its `kind` is that of an entry point of group `rfsearch.choices`, built-in or a plugin's. JSON without
one is that of a kind which ledgers held before kinds had names: it is known by its keys, and is written as it was then,
because what is derived from a candidate's text must stay what it was when a run is resumed.
"""

from __future__ import annotations

from rfsearch import plugins
from rfsearch.choices.base import Body, Choice
from rfsearch.choices.dilated import Dilated
from rfsearch.choices.fractional import Fractional
from rfsearch.choices.guest import Guest
from rfsearch.choices.inflated import Inflated
from rfsearch.choices.sampled import Sampled
from rfsearch.choices.searched import Searched
from rfsearch.errors import SpaceError


def read_choice(body: Body) -> Choice:
    """Read a choice from JSON.

    Raises:
        SpaceError: Its kind is unknown, or its values are none of that kind.
        RequestError: The plugin of its kind does not load.
    """
    if "kind" not in body:
        return _kind_by_keys(body).from_json(body)
    kind = _named_kind(body["kind"])
    try:
        return kind.from_json(body)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise SpaceError(f"not a choice of kind {kind.kind!r}: {what}. Got {dict(body)!r}.") from error


def _named_kind(name: object) -> type[Choice]:
    """Find a kind by its name."""
    if not isinstance(name, str):
        raise SpaceError(f"the kind of a choice is a name. Got {name!r}.")
    kind: object = plugins.load("choices", name)
    if not (isinstance(kind, type) and issubclass(kind, Choice)):
        raise SpaceError(f"plugin {name!r} of rfsearch.choices gives a class of rfsearch.Choice. Got {kind!r}.")
    return kind


def _kind_by_keys(body: Body) -> type[Choice]:
    """Tell a kind without a name by the keys of its JSON."""
    inflated, learned = body.get("f", 1.0) != 1.0, bool(body.get("learned", False))
    sampled, searched, layer = "gamma" in body, bool(body.get("fractional", False)), bool(body.get("layer", ""))
    if sampled and (inflated or learned):
        raise SpaceError("a site gets an inflation factor or an LS-DFN block, not both.")
    if searched and (sampled or learned):
        raise SpaceError(
            "a site whose dilation is found in training gets neither a learned inflation nor an LS-DFN block."
        )
    if layer:
        if searched or sampled or learned or inflated:
            raise SpaceError(
                "a site with a layer in its convolution's place gets no inflation, no LS-DFN block and no other search "
                f"of its dilation. Got {body['layer']!r} with one of them."
            )
        return Guest
    if sampled:
        return Sampled
    if searched:
        return Fractional if inflated else Searched
    return Inflated if inflated or learned else Dilated
