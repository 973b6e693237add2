"""The embedding cache lets go of what nobody came back to, whatever else is written meanwhile"""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from shared.model.embedder import Embeddings
from shared.reindex.embedding_cache import EmbeddingCache, Shard, joined
from tests.support.limits import no_more_files

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


@pytest.mark.parametrize("damage", [b"", b"PK", "compression", "encrypted"])
def test_a_damaged_shard_is_removed_so_that_its_photos_are_embedded_again(tmp_path: Path, damage: bytes | str) -> None:
    cache = EmbeddingCache(tmp_path, "f")
    cache.write("shard", Shard(["a" * 64], Embeddings(np.ones((1, 4), np.float32), np.ones((1, 2), np.float32)), {}))
    [path] = tmp_path.rglob("shard.npz")
    content = bytearray(path.read_bytes())
    if isinstance(damage, bytes):
        content[:] = damage
    else:
        # In the archive's directory: flags of the first member, and how it is compressed.
        first = content.index(b"PK\x01\x02")
        content[first + (8 if damage == "encrypted" else 10)] ^= 0x41
    path.write_bytes(content)
    assert cache.known() == {}
    assert not path.exists()


def test_a_shard_that_cannot_be_opened_now_is_kept(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, "f")
    cache.write("shard", _NOTHING)
    with no_more_files(), pytest.raises(OSError, match="Too many open files"):
        cache.read("shard")
    assert cache.read("shard") is not None


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
