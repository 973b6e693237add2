"""MilvusServer: one connection to Milvus, and the collections there that are ours. Knows no snapshot and no search.

A collection is written once, under a name nobody else knows, and never changed after: what a version of the index
found when it was verified it finds for ever, a rollback goes back to exactly that, and a worker that everybody believes
dead has nothing it could write to. Which collection is live is for the pointer of the artifact store to say, as it is
for files; the alias follows the pointer, for readers that are not ours.
"""

import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from shared.catalogue.categories import CATEGORIES
from shared.errors import CannotStart, IndexDamaged, IndexUnavailable
from shared.milvus_url import FAISS, parse_milvus_url
from shared.settings import Settings
from shared.telemetry import event

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_LOG = logging.getLogger(__name__)

VECTOR: Final = "vector"  # the field that is searched
TIMEOUT_S: Final = 10.0
_LONG_S = 600.0  # what is one call, and work for the server
_POLL_S = 0.5
_LEFTOVER = timedelta(days=1)
_PREFIX = "lookalike_"
_STAMP = "%Y%m%dT%H%M%S"
_DIGITS = 12
_NO_COLLECTION = 100
_TEXT_BYTES = 65_535  # the most that Milvus allows

Tick = Callable[[], None]


class MilvusServer:
    """Safe to share between threads; connects when it is first asked something, and again after it was away.

    Every method raises IndexUnavailable when the server does not answer or does not want to, and IndexDamaged when it
    has no collection of the name.

    Args:
        address: as LOOKALIKE_INDEX.
        timeout_s: of a call that is not work.

    Raises:
        CannotStart: the client library is not installed.
    """

    def __init__(self, address: str, token: str = "", *, timeout_s: float = TIMEOUT_S) -> None:
        # Read when the library is loaded. With it, one in twenty children of this process dies before it begins.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        try:
            import pymilvus  # of an extra of its own
        except ImportError as exc:
            raise CannotStart("LOOKALIKE_INDEX names Milvus, which needs: pip install 'lookalike[milvus]'") from exc
        # It would log each failed call over thirty lines; what fails here is raised, and told once.
        logging.getLogger(pymilvus.__name__).setLevel(logging.CRITICAL + 1)
        self._address = parse_milvus_url(address)
        self._token = token
        self._timeout_s = timeout_s
        self._connecting = threading.Lock()
        self._client: MilvusClient | None = None

    @contextmanager
    def calling(self, collection: str = "") -> Iterator["MilvusClient"]:
        """The client, for calls whose failures become ours.

        Raises:
            IndexUnavailable, IndexDamaged: as the class says.
        """
        import grpc
        from pymilvus.exceptions import MilvusException

        try:
            yield self._connected()
        except MilvusException as exc:
            if exc.code == _NO_COLLECTION and collection:
                raise IndexDamaged(
                    f"Milvus has lost collection {collection}; `lookalike reindex` makes another"
                ) from exc
            raise IndexUnavailable(f"Milvus at {self._address.uri}: {str(exc.message)[:200]}") from exc
        except grpc.RpcError as exc:
            code = exc.code().name if isinstance(exc, grpc.Call) else type(exc).__name__
            raise IndexUnavailable(f"Milvus at {self._address.uri} does not answer: {code}") from exc

    def _connected(self) -> "MilvusClient":
        from pymilvus import MilvusClient

        with self._connecting:
            if self._client is None:
                self._client = MilvusClient(
                    uri=self._address.uri,
                    token=self._token,
                    db_name=self._address.database,
                    timeout=self._timeout_s,
                    dedicated=True,
                    # The default asks an idle connection every ten seconds, and the embedded twin hangs up on that.
                    grpc_options={"grpc.keepalive_permit_without_calls": 0},
                )
            return self._client

    def close(self) -> None:
        """Let go of the connection; the next call makes another."""
        with self._connecting:
            client, self._client = self._client, None
        if client:
            client.close()

    # --- reading ---

    def search(self, collection: str, queries: Any, n: int, **options: Any) -> list[list[dict[str, Any]]]:
        """Hits of each query, as the client gives them."""
        with self.calling(collection) as client:
            found: Any = client.search(
                collection, data=queries, anns_field=VECTOR, limit=n, timeout=self._timeout_s, **options
            )
            return [list(hits) for hits in found]

    def query(self, collection: str, condition: str, fields: list[str], **options: Any) -> list[dict[str, Any]]:
        """Rows that meet a condition, in no order."""
        with self.calling(collection) as client:
            return list(
                client.query(collection, filter=condition, output_fields=fields, timeout=self._timeout_s, **options)
            )

    def count(self, collection: str) -> int:
        """Rows in a collection, with all that was ever inserted."""
        [found] = self.query(collection, "", ["count(*)"], consistency_level="Strong")
        return int(found["count(*)"])

    def dimension(self, collection: str) -> int:
        """Of the vectors in a collection."""
        with self.calling(collection) as client:
            described = client.describe_collection(collection, timeout=self._timeout_s)
        return next((int(field["params"]["dim"]) for field in described["fields"] if field["name"] == VECTOR), 0)

    def load(self, collection: str, tick: Tick = lambda: None) -> None:
        """Have the server ready to search a collection; returns when it is.

        Args:
            tick: called now and then; what it raises ends the waiting.
        """
        with self.calling(collection) as client:
            from pymilvus.client.types import LoadState

            if client.get_load_state(collection, timeout=self._timeout_s)["state"] is LoadState.Loaded:
                return
            client.load_collection(collection, timeout=_LONG_S, _async=True)
            while client.get_load_state(collection, timeout=self._timeout_s)["state"] is not LoadState.Loaded:
                tick()
                time.sleep(_POLL_S)

    # --- writing ---

    def create(self, collection: str, dimension: int) -> None:
        """Make an empty collection."""
        with self.calling() as client:
            from pymilvus import DataType

            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("row", DataType.INT64, is_primary=True)
            schema.add_field("image_id", DataType.VARCHAR, max_length=_TEXT_BYTES)
            schema.add_field("listing_id", DataType.VARCHAR, max_length=_TEXT_BYTES)
            schema.add_field("listing_key", DataType.INT64)
            schema.add_field("category", DataType.INT8)
            schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dimension)
            schema.add_field("scores", DataType.ARRAY, element_type=DataType.FLOAT, max_capacity=len(CATEGORIES))
            # What never changes needs no waiting for the latest.
            client.create_collection(collection, schema=schema, consistency_level="Bounded", timeout=self._timeout_s)

    def insert(self, collection: str, rows: list[dict[str, Any]]) -> None:
        with self.calling(collection) as client:
            client.insert(collection, rows, timeout=_LONG_S)

    def index(self, collection: str, kind: str, params: dict[str, int], tick: Tick) -> None:
        """Have everything that was inserted indexed; returns when it is.

        Args:
            kind: of the vectors' index.
            tick: called now and then; what it raises ends the waiting.
        """
        with self.calling(collection) as client:
            client.flush(collection, timeout=_LONG_S)
            wanted = client.prepare_index_params()
            # On vectors of length 1 the product is the cosine, and they come back as they were given.
            # Params in params, as every server reads them: the embedded twin does not see those the client lays open.
            nested = {"params": params} if params else {}
            wanted.add_index(VECTOR, index_name=VECTOR, index_type=kind, metric_type="IP", params=nested)
            for field in ("category", "listing_key"):
                wanted.add_index(field, index_name=field, index_type="INVERTED")
            client.create_index(collection, wanted, timeout=_LONG_S, sync=False)
            for field in (VECTOR, "category", "listing_key"):
                while (state := self._index_state(client, collection, field)) != "Finished":
                    if state == "Failed":
                        raise IndexUnavailable(f"Milvus at {self._address.uri} cannot index {field} of {collection}")
                    tick()
                    time.sleep(_POLL_S)

    def _index_state(self, client: "MilvusClient", collection: str, field: str) -> str:
        return str(client.describe_index(collection, field, timeout=self._timeout_s)["state"])

    # --- collections ---

    @contextmanager
    def draft(self, name: "CollectionName", known: Collection[str]) -> Iterator[None]:
        """Make a collection of that name in the body: it is dropped if that fails, and what others left goes first.

        Args:
            known: collections of sealed versions.
        """
        self._sweep(name, known)
        try:
            yield
        except BaseException:
            with suppress(IndexUnavailable):  # then it is swept another time
                self.drop(str(name))
            raise

    def _sweep(self, coming: "CollectionName", known: Collection[str]) -> None:
        """Drop what is half-built: by an earlier attempt at the same job, or more than a day ago."""
        with self.calling() as client:
            names = client.list_collections(timeout=self._timeout_s)
        for name in sorted(set(names) - set(known)):
            found = CollectionName.parse(name)
            if found is None or found.alias != coming.alias:
                continue
            if (found.job and found.job == coming.job) or found.begun < coming.begun - _LEFTOVER:
                event(_LOG, "collection_swept", collection=name)
                self.drop(name)

    def drop(self, collection: str) -> None:
        """Remove a collection, if it is there; readers that had it find it gone."""
        with self.calling() as client:
            client.drop_collection(collection, timeout=_LONG_S)

    def name_live(self, alias: str, collection: str) -> None:
        """Have the alias lead to a collection."""
        with self.calling(collection) as client:
            from pymilvus.exceptions import MilvusException

            try:
                leads_to = client.describe_alias(alias, timeout=self._timeout_s)["collection_name"]
            except MilvusException:
                client.describe_collection(collection, timeout=self._timeout_s)  # or it is the server that is away
                with suppress(MilvusException):  # another worker was faster; the next look tells
                    client.create_alias(collection, alias, timeout=self._timeout_s)
            else:
                if leads_to != collection:
                    client.alter_alias(collection, alias, timeout=self._timeout_s)


def alias_of(place: str) -> str:
    """What the live collection of an installation is known by, and all its collections' names begin with.

    Args:
        place: of its artifact store: a copy of an installation, which knows the collections of the original, must
            neither drop them nor call one of them live.
    """
    return f"{_PREFIX}{hashlib.sha256(place.encode()).hexdigest()[:_DIGITS]}"


@dataclass(frozen=True)
class CollectionName:
    """All that is to be known of a collection, because what is said beside the name not every server keeps.

    Attributes:
        alias: of the installation, which finds the live one.
        job: digits of the job that makes it; empty: no job does.
        salt: makes it another name than that of an attempt in the same second.
    """

    alias: str
    begun: datetime
    fingerprint: str
    job: str
    salt: str

    @classmethod
    def new(cls, alias: str, fingerprint: str, made_by: str) -> Self:
        """A name nobody has."""
        return cls(
            alias=alias,
            begun=datetime.now(UTC).replace(microsecond=0),
            fingerprint=fingerprint[:_DIGITS],
            job=hashlib.sha256(made_by.encode()).hexdigest()[:_DIGITS] if made_by else "",
            salt=secrets.token_hex(2),
        )

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """None of a name that is not of our making."""
        try:
            alias, begun, fingerprint, job, salt = name.rsplit("_", 4)
            return cls(alias, datetime.strptime(begun, _STAMP).replace(tzinfo=UTC), fingerprint, job, salt)
        except ValueError:
            return None

    def __str__(self) -> str:
        return "_".join((self.alias, self.begun.strftime(_STAMP), self.fingerprint, self.job, self.salt))


def open_server(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> MilvusServer | None:
    """The server the settings name; None where vectors lie in files.

    Raises:
        CannotStart: the client library is not installed.
    """
    if settings.index == FAISS:
        return None
    token = settings.index_token.get_secret_value() if settings.index_token else ""
    return MilvusServer(settings.index, token, timeout_s=timeout_s)
