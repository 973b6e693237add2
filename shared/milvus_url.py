"""LOOKALIKE_INDEX as an operator gives it. Connects to nothing."""

from dataclasses import dataclass
from urllib.parse import urlsplit

FAISS = "faiss"
_FORM = "milvus+http://host:19530[/database] (or milvus+https)"


@dataclass(frozen=True)
class MilvusAddress:
    """Where a Milvus server is, and which of its databases is ours."""

    uri: str
    database: str


def parse_milvus_url(url: str) -> MilvusAddress:
    """Read the URL.

    Raises:
        ValueError: it is none; says why in words that hold nothing of the URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 19530
    except ValueError:
        raise ValueError(f"must be {FAISS} or look like {_FORM}") from None
    if parts.scheme not in ("milvus+http", "milvus+https") or not host or parts.query or parts.fragment:
        raise ValueError(f"must be {FAISS} or look like {_FORM}")
    if "@" in parts.netloc:
        raise ValueError("must not name a user; LOOKALIKE_INDEX_TOKEN is for that, as user:password")
    database = parts.path.strip("/")
    if not (database.isascii() and (not database or database.isidentifier())):
        raise ValueError("names a database with other characters than letters, digits and _")
    host = f"[{host}]" if ":" in host else host
    return MilvusAddress(f"{parts.scheme.removeprefix('milvus+')}://{host}:{port}", database)
