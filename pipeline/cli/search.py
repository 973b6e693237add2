"""`lookalike search`: a search by the live index and its model, or by a service elsewhere."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import TypeAdapter, ValidationError

from pipeline.cli.common import json_option, print_facts, report_errors, when
from pipeline.cli.help import with_examples
from pipeline.cli.remote import search_remote
from shared.photos.boxes import Box, BoxOption
from shared.settings import Settings, load_settings

if TYPE_CHECKING:  # heavy: only for what is asked for
    from shared.model.bundle import ModelBundle
    from shared.model.embedder import Embeddings

_DEFAULT_INCLUDE = ("title", "price")  # where the catalogue has them
_TITLE_CHARS = 48
_VALUES_SHOWN = 8
_BOX: TypeAdapter[Box] = TypeAdapter(BoxOption)


def _names(given: str | None) -> list[str] | None:
    """The names of an option such as `title,price`; None: the option was not given."""
    return None if given is None else [name for part in given.split(",") if (name := part.strip())]


def _filter(_context: click.Context, _parameter: click.Parameter, given: str | None) -> dict[str, Any] | None:
    """The filter of an option: JSON, or @ and the name of a file with it."""
    if given is None:
        return None
    try:
        found = json.loads(Path(given[1:]).read_text(encoding="utf-8-sig") if given.startswith("@") else given)
    except OSError as exc:
        raise click.BadParameter(f"{given[1:]} cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise click.BadParameter(f"it is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise click.BadParameter('a JSON object is needed, such as {"must": [{"key": "price", "range": {"lte": 50}}]}')
    return found


def _box(_context: click.Context, _parameter: click.Parameter, given: str | None) -> Box | None:
    """The part of the photo that an option names."""
    try:
        return None if given is None else _BOX.validate_python("".join(given.split()))
    except ValidationError as exc:
        raise click.BadParameter(exc.errors()[0]["msg"].removeprefix("Value error, ")) from exc


@with_examples(
    "lookalike search photo.jpg",
    "lookalike search photo.jpg -k 8 --json | jq .neighbours",
    """lookalike search photo.jpg --filter '{"must": [{"key": "price", "range": {"lte": 50}}]}'""",
    "lookalike search photo.jpg --filter @filter.json --include title,price,location --facets category,price",
    "lookalike search photo.jpg --box 0.5,0,0.5,1",
    "lookalike search photo.jpg --text 'oak coffee table'",
    "lookalike search --text 'oak coffee table'",
    "lookalike search --together front.jpg back.jpg label.jpg",
    "lookalike search --listing 273d41aa-5aae-4b4a-bd6b-2ea5a0cb5c8f",
    "LOOKALIKE_API_KEY=lk_… lookalike search photo.jpg --url https://search.example.org",
)
@click.command()
@click.argument("photos", metavar="[PHOTO]...", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--together", is_flag=True, help="Several photos of one thing are one query, the mean of them.")
@click.option("--listing", metavar="ID", help="All photos that the index has of this listing, instead of a photo.")
@click.option("-k", type=click.IntRange(1, 100), default=4, show_default=True, help="Neighbours wanted.")
@click.option("--text", metavar="WORDS", help="Words about the thing, with a photo or alone.")
@click.option("--text-weight", type=click.FloatRange(0, 1), help="How much the words count: 0 not at all, 1 alone.")
@click.option(
    "--prefer", type=click.Choice(["same_thing", "same_kind"]), help="What to find first. Default: a balance."
)
@click.option("--box", metavar="X,Y,W,H", callback=_box, help="Only this part, in fractions of the upright photo.")
@click.option("--filter", "conditions", metavar="JSON|@FILE", callback=_filter, help="Only listings that meet this.")
@click.option("--include", metavar="NAMES", help="Attributes to show, `*` for all. Default: title and price.")
@click.option("--facets", metavar="NAMES", help="Count the listings by these attributes, or by category.")
@click.option("--url", help="Ask the service there; with LOOKALIKE_API_KEY, if it is set.")
@json_option
@report_errors
def search(
    photos: tuple[Path, ...],
    together: bool,
    listing: str | None,
    k: int,
    text: str | None,
    text_weight: float | None,
    prefer: str | None,
    box: Box | None,
    conditions: dict[str, Any] | None,
    include: str | None,
    facets: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Category of PHOTO and the catalogue photos most similar to it, from the live index and its model.

    Several photos of one thing are searched --together, and those of a listing of the index by --listing, which leaves
    that listing out. Words count beside the photos, or are searched for alone.

    Without --url it needs no service, and takes some seconds to load the model.
    """
    if photos and listing is not None:
        raise click.UsageError("a PHOTO or --listing ID: one of the two")
    if not photos and listing is None and text is None:
        raise click.UsageError("a PHOTO, --listing ID or --text WORDS is needed")
    if len(photos) > 1 and not together:
        raise click.UsageError(f"{len(photos)} photos: one is needed, or --together for several of one thing")
    if box is not None and len(photos) != 1:
        raise click.UsageError("--box: it is a part of one photo; name one")
    if text_weight is not None and text is None:
        raise click.UsageError("--text-weight: it says how much words count; give them with --text")
    options: dict[str, Any] = {"k": k}
    given = {
        "listing_id": listing,
        "text": text,
        "text_weight": text_weight,
        "prefer": prefer,
        "box": box,
        "filter": conditions,
        "include": _names(include),
        "facets": _names(facets),
    }
    options |= {name: value for name, value in given.items() if value is not None}
    facts = (
        search_remote(photos, options, url, _DEFAULT_INCLUDE, as_json=as_json) if url else _search_here(photos, options)
    )
    print_facts(as_json, facts, "\n".join(answer_lines(facts)))


def _search_here(photos: Sequence[Path], options: Mapping[str, Any]) -> dict[str, Any]:
    """Search the live index with its model, in this process."""
    from shared.artifacts.rerankers import reranker_store
    from shared.artifacts.snapshots import answering_bundle, index_store
    from shared.attributes.filters import bind_filter
    from shared.attributes.schema import AttributeSchema
    from shared.catalogue.categories import Categories
    from shared.errors import InvalidRequest
    from shared.index.answers import Asked, encoded_text
    from shared.index.delta.index import DeltaIndex
    from shared.index.milvus.server import open_server
    from shared.index.reranking import promoted_reranker, reranked_result
    from shared.index.snapshot import open_snapshot
    from shared.jobs.contract import SearchRequest
    from shared.model.bundle import bundle_store, open_bundle
    from shared.model.embedder import joined

    settings = load_settings()
    bundle = open_bundle(bundle_store(settings.storage), answering_bundle(settings.storage))
    snapshot = open_snapshot(
        index_store(settings.storage), fingerprint=bundle.manifest.fingerprint, server=open_server(settings)
    )
    schema = AttributeSchema(snapshot.manifest.attributes)
    default = [name for name in _DEFAULT_INCLUDE if schema.get(name)]
    try:
        request = SearchRequest.model_validate({"include": default, **options})
    except ValidationError as exc:
        raise InvalidRequest(f"{exc.errors()[0]['loc'][0]}: {exc.errors()[0]['msg']}") from exc
    if request.filter is not None:
        bind_filter(request.filter, schema, Categories(snapshot.manifest.categories))
    schema.require_included(request.include)
    schema.require_countable(request.facets)
    index = DeltaIndex(snapshot, lambda put: None)
    words_alone = not photos and request.listing_id is None
    request = request.model_copy(update={"without_photo": words_alone})
    text = encoded_text(request, bundle.text_encoder())
    embeddings = None
    if request.listing_id is not None:
        embeddings = joined([index.stored_listing(request.listing_id)])
    elif not words_alone:
        embeddings = joined([_embedded(photos, request.box, bundle, settings)])
    reranker = promoted_reranker(reranker_store(settings.storage), bundle.manifest.fingerprint)
    result = reranked_result(Asked(embeddings, text), request, index, bundle.manifest, reranker)
    return result.model_dump(mode="json", exclude_none=True)


def _embedded(photos: Sequence[Path], box: Box | None, bundle: "ModelBundle", settings: Settings) -> "Embeddings":
    """Decode and embed photos.

    Raises:
        InputError: one cannot be decoded; of several, the message names it.
    """
    import numpy as np

    from shared.errors import InputError
    from shared.photos.images import decode_photo

    pixels = []
    for photo in photos:
        try:
            spec = bundle.manifest.preprocess
            pixels.append(decode_photo(photo.read_bytes(), spec, box=box, max_pixels=settings.max_pixels))
        except InputError as exc:
            raise exc if len(photos) == 1 else type(exc)(f"{photo}: {exc}") from exc
    from shared.model.references import verify_embeddings
    from shared.model.runtimes import open_embedder  # heavy: only for photos that can be decoded

    embedder = open_embedder(bundle, threads=settings.threads)
    verify_embeddings(bundle, embedder)
    return embedder.embed(np.stack(pixels))


def answer_lines(result: Mapping[str, Any]) -> list[str]:
    """Lines of text for a search result: the categories with their probabilities, the neighbours, the facets.

    Of categories of several levels that are not certain, what is certain of the path comes first.
    """
    category = result["category"]
    lines = [f"{score['probability']:6.1%}  {score['name']}" for score in category["top"]]
    if (part := category.get("certain_path")) and not category["certain"]:
        lines.insert(0, f"{part['probability']:6.1%}  {part['name']}, of which it is certain; perhaps:")
    if match := result.get("match"):
        lines.append(f"{match['probability']:6.1%}  {_match(match)}")
    for n in result["neighbours"]:
        line = f"{n['rank']:3d}. {n['score']:.3f}  {n['image_id']}  {n['category']}"
        lines.append(line + _attributes(n.get("attributes") or {}))
    return lines + [_facet(name, facet) for name, facet in (result.get("facets") or {}).items()]


def _match(match: Mapping[str, Any]) -> str:
    """What a match says, after its probability."""
    if not match["certain"]:
        return f"that it is the same thing as {match['image_id']}: not certain"
    if match["probability"] < 0.5:
        return "that it is here: certain that it is not"
    return f"that it is the same thing as {match['image_id']}: certain"


def _attributes(values: Mapping[str, Any]) -> str:
    """Price and title in columns, other attributes with their names."""
    if not values:
        return ""
    others = [f"{name}: {_shown(value)}" for name, value in values.items() if name not in _DEFAULT_INCLUDE]
    columns = [f"{_shown(values['price']):>12}"] if "price" in values else []
    columns += [_shown(values["title"])] if "title" in values else []
    return "".join(f"  {column}" for column in [*columns, *others])


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{value.get('amount'):,.2f} {value.get('currency', '')}".rstrip()
    text = f"{value:.12g}" if isinstance(value, float) else str(value)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= _TITLE_CHARS else text[: _TITLE_CHARS - 1] + "…"


def shown_number(number: float, attribute_type: str) -> str:
    """A bound of an attribute's range, for people; a time's as its day."""
    return when(number)[:10] if attribute_type == "time" else f"{number:,.12g}"


def _facet(name: str, facet: Mapping[str, Any]) -> str:
    if facet.get("quantiles"):
        numbers = (facet["minimum"], facet["maximum"], facet["quantiles"][10])
        low, high, middle = (shown_number(number, facet["type"]) for number in numbers)
        return f"{name}: {low} to {high}, half of {facet['count']} listings up to {middle}"
    counts = [f"{_shown(one['value'])} {one['count']}" for one in facet["values"][:_VALUES_SHOWN]]
    more = ", …" if len(facet["values"]) > len(counts) else ""
    return f"{name}: {', '.join(counts) or 'no listing has it'}{more}"
