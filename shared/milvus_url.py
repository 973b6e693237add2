"""Parses LOOKALIKE_INDEX, the address of a Milvus server, without connecting to it."""

from dataclasses import dataclass
from urllib.parse import urlsplit

FAISS = "faiss"
_FORM = "milvus+http://host:19530[/database] (or milvus+https)"


@dataclass(frozen=True)
class MilvusAddress:
    """Address of a Milvus server, and the database to use there; empty: the default one."""

    uri: str
    database: str


def parse_milvus_url(url: str) -> MilvusAddress:
    """Parse the URL.

    Args:
        url: `milvus+http://host:19530[/database]` or `milvus+https`.

    Raises:
        ValueError: it has another form; the message does not quote it, because it may hold a password.
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
