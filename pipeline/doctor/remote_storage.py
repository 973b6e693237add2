"""Check the object store and the Milvus server that LOOKALIKE_STORE and LOOKALIKE_INDEX name, by reading only."""

import os
from contextlib import closing
from pathlib import Path

from pipeline.doctor.findings import Findings, fail, ok

_TIMEOUT_S = 5


def check_store() -> Findings:
    """Check that the object store answers and can be listed, or that the directory can be used."""
    from shared.errors import StoreUnavailable
    from shared.settings import load_settings

    settings = load_settings()
    if settings.store is None:
        return
    storage = settings.storage
    if isinstance(storage, Path):
        there = next(path for path in (storage.absolute(), *storage.absolute().parents) if path.exists())
        if there.is_dir() and os.access(there, os.R_OK | os.W_OK | os.X_OK):
            yield ok("store", str(storage) if there == storage.absolute() else f"{storage}, to be made")
        else:
            yield fail("store", f"{storage}: cannot be read and written", "make it yours, or name another directory")
        return
    try:
        names = storage.top()
    except StoreUnavailable as exc:
        yield fail("store", str(exc), "start the object store, or mend LOOKALIKE_STORE and the AWS_ variables")
    else:
        yield ok("store", f"{storage} answers, {'holds ' + ', '.join(names) if names else 'and is empty'}")


def check_index() -> Findings:
    """Check that the Milvus server answers and its collections can be listed."""
    from shared.errors import CannotStart, IndexUnavailable
    from shared.index.milvus.server import open_server
    from shared.settings import load_settings

    try:
        server = open_server(load_settings(), timeout_s=_TIMEOUT_S)
    except CannotStart as exc:
        yield fail("index", str(exc), "install it, or unset LOOKALIKE_INDEX")
        return
    if server is None:
        return
    with closing(server):
        try:
            with server.calling() as client:
                n_collections = len(client.list_collections(timeout=_TIMEOUT_S))
        except IndexUnavailable as exc:
            yield fail("index", str(exc), "start Milvus, or mend LOOKALIKE_INDEX and LOOKALIKE_INDEX_TOKEN")
        else:
            yield ok("index", f"Milvus answers, and has {n_collections} collection{'s' * (n_collections != 1)}")
