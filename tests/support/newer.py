"""What a newer version may have written: the same, with fields that this one does not know."""

import json

# Objects whose names are facts, and not fields.
_BY_NAME = {
    *("metrics", "gate", "libraries", "graph_sha256", "files"),  # of manifests
    *("reasons", "timings_s"),  # of reindexes
    *("outcomes", "stages", "by_kind", "batch_sizes"),  # of workers
}


def with_unknown_fields(text: str | bytes) -> str:
    """JSON text in which every object has one more field."""
    return json.dumps(_extended(json.loads(text)))


def _extended(value: object) -> object:
    if isinstance(value, list):
        return [_extended(item) for item in value]
    if not isinstance(value, dict):
        return value
    known = {name: inner if name in _BY_NAME else _extended(inner) for name, inner in value.items()}
    return {**known, "of_a_newer_version": {"said": [1]}}
