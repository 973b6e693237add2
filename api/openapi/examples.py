"""Makes the contract's examples of what is the catalogue's own: a filter, and the attributes of a photo."""

from collections.abc import Sequence

from pydantic import JsonValue

from shared.attributes.schema import CATEGORY, NUMERIC, Attribute, AttributeSchema, AttributeType

_SAMPLES: dict[AttributeType, JsonValue] = {
    AttributeType.NUMBER: 12.5,
    AttributeType.PRICE: 12.5,
    AttributeType.TEXT: "a lamp",
    AttributeType.KEYWORD: "red",
    AttributeType.PLACE: "Bath",
    AttributeType.TIME: "2026-11-29",
    AttributeType.BOOLEAN: True,
}


def filter_example(categories: Sequence[str], attributes: AttributeSchema) -> dict[str, JsonValue]:
    """A filter that this catalogue takes: a range where it has numbers or prices, a category, a text that is there."""
    must: list[JsonValue] = [{"key": CATEGORY, "match": {"any": [categories[0]]}}]
    if ranged := _first(attributes, AttributeType.PRICE) or _first(attributes, AttributeType.NUMBER):
        bounds: dict[str, JsonValue] = {"lte": ranged.quantiles[len(ranged.quantiles) // 2] if ranged.quantiles else 50}
        if len(ranged.currencies) > 1:
            bounds["currency"] = ranged.currencies[0]
        must.insert(0, {"key": ranged.name, "range": bounds})
    example: dict[str, JsonValue] = {"must": must}
    if text := _first(attributes, AttributeType.TEXT):
        example["must_not"] = [{"is_empty": {"key": text.name}}]
    return example


def values_example(attributes: AttributeSchema) -> dict[str, JsonValue]:
    """Values that a photo of this catalogue may be put with: a text and a number, or else its first attribute."""
    told = [_first(attributes, AttributeType.TEXT), *(one for one in attributes if one.type in NUMERIC)]
    some = [one for one in told if one][:2] or list(attributes)[:1]
    return {one.name: _SAMPLES[one.type] for one in some}


def _first(attributes: AttributeSchema, wanted: AttributeType) -> Attribute | None:
    return next((one for one in attributes if one.type is wanted), None)
