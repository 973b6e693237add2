"""The embedding cache lets go of what nobody came back to, whatever else is written meanwhile"""

import os
import threading
import time
from pathlib import Path

from shared.reindex.embedding_cache import EmbeddingCache, Shard, joined

_NOTHING = Shard([], joined([]), {})
_TWO_MONTHS_S = 60 * 86_400


def test_what_is_old_goes_though_the_rest_is_young(tmp_path: Path) -> None:
    cache, other = EmbeddingCache(tmp_path, "f"), EmbeddingCache(tmp_path, "f", "of one reindex")
    for name in ("old", "young"):
        cache.write(name, _NOTHING)
    other.write("old", _NOTHING)
    for path in tmp_path.glob("*/*/*/old.npz"):
        os.utime(path, (time.time() - _TWO_MONTHS_S,) * 2)
    cache.sweep()
    assert list(cache.names()) == ["young"]
    assert list(other.names()) == []
    directory = tmp_path / "embeddings" / "f" / "of one reindex"
    os.utime(directory, (time.time() - _TWO_MONTHS_S,) * 2)
    cache.sweep()
    assert not directory.exists()


def test_shards_may_be_written_while_it_is_swept(tmp_path: Path) -> None:
    cache, done = EmbeddingCache(tmp_path, "f"), threading.Event()

    def write() -> None:
        for _ in range(100):
            cache.write("shard", _NOTHING)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        cache.sweep()
    writer.join()
    assert list(cache.names()) == ["shard"]
