"""MilvusServer: one connection to Milvus, with the calls this service makes on its collections there.

A collection is written once, under a unique name, and never changed afterwards. So a version of the index keeps the
rows that it was verified with, a rollback returns to exactly these, and a worker that lost its lease cannot write to a
collection in use. Which collection is live is decided by the pointer of the artifact store, as it is for files; the
alias follows the pointer, for readers outside Lookalike.
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

from shared.errors import CannotStart, IndexDamaged, IndexUnavailable
from shared.milvus_url import FAISS, parse_milvus_url
from shared.settings import Settings
from shared.telemetry import event

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_LOG = logging.getLogger(__name__)

VECTOR: Final = "vector"  # name of the vector field
TIMEOUT_S: Final = 10.0
_LONG_S = 600.0  # timeout of calls that make the server work: insert, flush, index, load, drop
_POLL_S = 0.5
_LEFTOVER = timedelta(days=1)
_PREFIX = "lookalike_"
_STAMP = "%Y%m%dT%H%M%S"
_DIGITS = 12
_NO_COLLECTION = 100
_TEXT_BYTES = 65_535  # the most that Milvus allows

Tick = Callable[[], None]


class MilvusServer:
    """A connection to Milvus for builds and searches; safe to share between threads.

    It connects at the first call, and again after the server was away. Every method raises IndexUnavailable when the
    server does not answer or refuses, and IndexDamaged when it has no collection of the given name.

        server = MilvusServer("milvus+http://localhost:19530")
        hits = server.search(collection, [query], 10, output_fields=["row"])

    Args:
        address: in the form of LOOKALIKE_INDEX.
        token: `user:password` or an API key; empty: none.
        timeout_s: of a call that does not make the server work.

    Raises:
        CannotStart: the client library is not installed.
    """

    def __init__(self, address: str, token: str = "", *, timeout_s: float = TIMEOUT_S) -> None:
        # Read when the library is loaded. With fork support on, one in twenty child processes dies before it begins.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        try:
            import pymilvus  # of an extra of its own
        except ImportError as exc:
            raise CannotStart("LOOKALIKE_INDEX names Milvus, which needs: pip install 'lookalike[milvus]'") from exc
        # It would log each failed call over thirty lines; here failures are raised, and logged once.
        logging.getLogger(pymilvus.__name__).setLevel(logging.CRITICAL + 1)
        self._address = parse_milvus_url(address)
        self._token = token
        self._timeout_s = timeout_s
        self._connecting = threading.Lock()
        self._client: MilvusClient | None = None

    @contextmanager
    def calling(self, collection: str = "") -> Iterator["MilvusClient"]:
        """Lend the pymilvus client for calls in the body, and translate their failures into errors of this service.

        Args:
            collection: that the calls are about, named in the error if it is gone; empty: none in particular.

        Raises:
            IndexUnavailable, IndexDamaged: see the class.
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
        from pymilvus.client.utils import SciPyHelper

        with self._connecting:
            if self._client is None:
                # It imports SciPy at its first search: several threads that did so at once have met it half imported.
                SciPyHelper.is_scipy_sparse([])
                self._client = MilvusClient(
                    uri=self._address.uri,
                    token=self._token,
                    db_name=self._address.database,
                    timeout=self._timeout_s,
                    dedicated=True,
                    # By default the client pings an idle connection every ten seconds, and Milvus Lite then closes it.
                    grpc_options={"grpc.keepalive_permit_without_calls": 0},
                )
            return self._client

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._connecting:
            client, self._client = self._client, None
        if client:
            client.close()

    # --- reading ---

    def search(self, collection: str, queries: Any, n: int, **options: Any) -> list[list[dict[str, Any]]]:
        """Search one collection.

        Args:
            collection: its name.
            queries: n vectors of its dimension.
            n: hits per query at most.
            options: of `MilvusClient.search`: filter, output_fields, search_params, group_by_field.

        Returns:
            the hits of each query, best first, as the client returns them.
        """
        with self.calling(collection) as client:
            found: Any = client.search(
                collection, data=queries, anns_field=VECTOR, limit=n, timeout=self._timeout_s, **options
            )
            return [list(hits) for hits in found]

    def query(self, collection: str, condition: str, fields: list[str], **options: Any) -> list[dict[str, Any]]:
        """Fetch the rows that meet a filter expression, in no order.

        Args:
            collection: its name.
            condition: Milvus's filter expression.
            fields: to return of each row.
            options: of `MilvusClient.query`.
        """
        with self.calling(collection) as client:
            return list(
                client.query(collection, filter=condition, output_fields=fields, timeout=self._timeout_s, **options)
            )

    def count(self, collection: str) -> int:
        """Count the rows of a collection, including the latest inserts."""
        [found] = self.query(collection, "", ["count(*)"], consistency_level="Strong")
        return int(found["count(*)"])

    def dimension(self, collection: str) -> int:
        """Return the dimension of a collection's vectors; 0 if it has no vector field."""
        with self.calling(collection) as client:
            described = client.describe_collection(collection, timeout=self._timeout_s)
        return next((int(field["params"]["dim"]) for field in described["fields"] if field["name"] == VECTOR), 0)

    def load(self, collection: str, tick: Tick = lambda: None) -> None:
        """Load a collection into the server's memory, and wait until it can be searched.

        Args:
            collection: its name.
            tick: called while waiting; an exception it raises ends the wait.
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

    def create(self, collection: str, dimension: int, n_categories: int) -> None:
        """Create an empty collection.

        Args:
            collection: its name.
            dimension: of its vectors.
            n_categories: scores of a photo.
        """
        with self.calling() as client:
            from pymilvus import DataType

            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("row", DataType.INT64, is_primary=True)
            schema.add_field("image_id", DataType.VARCHAR, max_length=_TEXT_BYTES)
            schema.add_field("listing_id", DataType.VARCHAR, max_length=_TEXT_BYTES)
            schema.add_field("listing_key", DataType.INT64)
            schema.add_field("category", DataType.INT16)
            schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dimension)
            schema.add_field("scores", DataType.ARRAY, element_type=DataType.FLOAT, max_capacity=n_categories)
            # A collection that never changes needs no waiting for the latest writes.
            client.create_collection(collection, schema=schema, consistency_level="Bounded", timeout=self._timeout_s)

    def insert(self, collection: str, rows: list[dict[str, Any]]) -> None:
        """Insert rows, each a value for every field of the schema in `create`; at most 64 MiB a call."""
        with self.calling(collection) as client:
            client.insert(collection, rows, timeout=_LONG_S)

    def index(self, collection: str, kind: str, params: dict[str, int], tick: Tick) -> None:
        """Flush and index everything that was inserted, and wait until that is done.

        Args:
            collection: its name.
            kind: index type of the vectors, FLAT or IVF_FLAT.
            params: of that index type.
            tick: called while waiting; an exception it raises ends the wait.
        """
        with self.calling(collection) as client:
            client.flush(collection, timeout=_LONG_S)
            wanted = client.prepare_index_params()
            # On vectors of length 1 the inner product is the cosine, and they come back as they were inserted.
            # Nested params, which every server reads: Milvus Lite does not see those that the client flattens.
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
        """Drop the collection if the body, which creates and fills it, fails; first sweep leftovers of earlier builds.

        Args:
            name: of the new collection.
            known: collections of sealed versions, which are kept.
        """
        self._sweep(name, known)
        try:
            yield
        except BaseException:
            with suppress(IndexUnavailable):  # then a later build sweeps it
                self.drop(str(name))
            raise

    def _sweep(self, coming: "CollectionName", known: Collection[str]) -> None:
        """Drop half-built collections: those of an earlier attempt of the same job, or begun more than a day ago."""
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
        """Drop a collection if it exists; processes that still search it get IndexDamaged."""
        with self.calling() as client:
            client.drop_collection(collection, timeout=_LONG_S)

    def name_live(self, alias: str, collection: str) -> None:
        """Point the alias at a collection, creating it if need be."""
        with self.calling(collection) as client:
            from pymilvus.exceptions import MilvusException

            try:
                leads_to = client.describe_alias(alias, timeout=self._timeout_s)["collection_name"]
            except MilvusException:
                client.describe_collection(collection, timeout=self._timeout_s)  # raises if the server is away
                with suppress(MilvusException):  # another worker was faster; the next call checks
                    client.create_alias(collection, alias, timeout=self._timeout_s)
            else:
                if leads_to != collection:
                    client.alter_alias(collection, alias, timeout=self._timeout_s)


def alias_of(place: str) -> str:
    """Return the Milvus alias of an installation's live collection; the names of all its collections begin with it.

    Args:
        place: of its artifact store. A copy of an installation has another place: its manifests name the original's
            collections, but it must neither drop them nor point its alias at one.
    """
    return f"{_PREFIX}{hashlib.sha256(place.encode()).hexdigest()[:_DIGITS]}"


@dataclass(frozen=True)
class CollectionName:
    """The name of a collection, which encodes its metadata, because not every server stores descriptions.

    Attributes:
        alias: of the installation; see `alias_of`.
        begun: when the build began, UTC, to the second.
        fingerprint: first 12 digits of the fingerprint of the model that made the vectors.
        job: 12 hexadecimal digits that stand for the job that builds it; empty: built by no job.
        salt: random, so that two attempts in the same second have different names.
    """

    alias: str
    begun: datetime
    fingerprint: str
    job: str
    salt: str

    @classmethod
    def new(cls, alias: str, fingerprint: str, made_by: str) -> Self:
        """Make a new, unique name.

        Args:
            alias: of the installation.
            fingerprint: of the model that made the vectors.
            made_by: id of the job that builds the collection; empty: none.
        """
        return cls(
            alias=alias,
            begun=datetime.now(UTC).replace(microsecond=0),
            fingerprint=fingerprint[:_DIGITS],
            job=hashlib.sha256(made_by.encode()).hexdigest()[:_DIGITS] if made_by else "",
            salt=secrets.token_hex(2),
        )

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read a collection's name; None if it was not made by `new`."""
        try:
            alias, begun, fingerprint, job, salt = name.rsplit("_", 4)
            return cls(alias, datetime.strptime(begun, _STAMP).replace(tzinfo=UTC), fingerprint, job, salt)
        except ValueError:
            return None

    def __str__(self) -> str:
        return "_".join((self.alias, self.begun.strftime(_STAMP), self.fingerprint, self.job, self.salt))


def open_server(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> MilvusServer | None:
    """Make the connection that the settings name; None where vectors are in files (`LOOKALIKE_INDEX=faiss`).

    Args:
        settings: `index` and `index_token`.
        timeout_s: see `MilvusServer`.

    Raises:
        CannotStart: the client library is not installed.
    """
    if settings.index == FAISS:
        return None
    token = settings.index_token.get_secret_value() if settings.index_token else ""
    return MilvusServer(settings.index, token, timeout_s=timeout_s)
