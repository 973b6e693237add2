"""Promotion by several at once: one pointer, one order, late comers refused, the way back kept, old versions pruned."""

import json
import mmap
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from shared.artifacts.backend import DirectoryBackend
from shared.artifacts.store import MANIFEST, ArtifactStore
from shared.errors import IndexDamaged, IndexMissing, PromotionRefused


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "things", missing=IndexMissing, damaged=IndexDamaged)


@pytest.fixture
def versions(store: ArtifactStore) -> list[str]:
    return [write_version(store) for _ in range(4)]


def write_version(store: ArtifactStore) -> str:
    with store.write() as draft:
        (draft.directory / "photo.bin").write_bytes(bytes(range(256)) * 64)
        (draft.directory / MANIFEST).write_text("{}")
    return draft.version


def test_two_writers_at_once_are_told_their_own_version(store: ArtifactStore) -> None:
    with store.write() as slow:
        (slow.directory / MANIFEST).write_text('{"by": "slow"}')
        with store.write() as quick:
            (quick.directory / MANIFEST).write_text('{"by": "quick"}')
    assert store.manifest(slow.version)["by"] == "slow"
    assert store.manifest(quick.version)["by"] == "quick"


def test_a_promotion_that_expects_another_version_to_be_live_is_refused(
    store: ArtifactStore, versions: list[str]
) -> None:
    store.promote(versions[0], expected=None)
    with pytest.raises(PromotionRefused, match=f"{versions[0]} is live, not {versions[1]}"):
        store.promote(versions[2], expected=versions[1])
    with pytest.raises(PromotionRefused, match="not nothing"):
        store.promote(versions[2], expected=None)
    assert store.current() == versions[0]
    store.promote(versions[2], expected=versions[0])
    assert store.current() == versions[2]


def test_who_was_overtaken_may_not_promote(store: ArtifactStore, versions: list[str]) -> None:
    zombie = store.take_fence()
    other_process = ArtifactStore(store.root, missing=IndexMissing, damaged=IndexDamaged)
    successor = other_process.take_fence()
    assert successor > zombie
    with pytest.raises(PromotionRefused, match="taken over"):
        store.promote(versions[0], fence=zombie)
    assert store.current() is None
    other_process.promote(versions[1], fence=successor)
    store.promote(versions[0])  # by hand
    other_process.promote(versions[1], fence=successor)
    assert store.current() == versions[1]


def test_rolling_back_twice_goes_back_two(store: ArtifactStore, versions: list[str]) -> None:
    first, second, third, fourth = versions
    for version in (first, second, third):
        store.promote(version)
    assert store.rollback() == second
    assert store.rollback() == first == store.current()
    with pytest.raises(PromotionRefused, match="nothing that was live before"):
        store.rollback()
    store.promote(fourth)
    assert store.rollback() == first


def test_rolling_back_undoes_a_promotion_of_an_older_version_too(store: ArtifactStore, versions: list[str]) -> None:
    first, second, *_ = versions
    for version in (first, second, first):
        store.promote(version)
    assert [store.rollback(), store.rollback()] == [second, first]


def test_promoting_the_live_version_again_changes_nothing(store: ArtifactStore, versions: list[str]) -> None:
    for version in (versions[0], versions[1], versions[1]):
        store.promote(version)
    assert store.rollback() == versions[0]


def test_a_rollback_passes_over_versions_that_are_gone(store: ArtifactStore, versions: list[str]) -> None:
    first, second, third, _ = versions
    for version in (first, second, third):
        store.promote(version)
    store.path(second).rename(store.root.parent / "moved")
    assert store.rollback() == first


def test_the_history_tells_promotions_and_rollbacks_with_their_times(store: ArtifactStore, versions: list[str]) -> None:
    store.promote(versions[0])
    store.promote(versions[1])
    store.rollback()
    told = store.history()
    assert [(entry.version, entry.back) for entry in told] == [
        (versions[0], False),
        (versions[1], False),
        (versions[0], True),
    ]
    assert [entry.at for entry in told] == sorted(entry.at for entry in told)


def test_a_promoter_killed_before_the_pointer_was_replaced_leaves_no_trace(
    store: ArtifactStore, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.promote(versions[0])
    backend = store._backend
    assert isinstance(backend, DirectoryBackend)
    write = backend.write

    def killed(name: str, content: bytes) -> None:
        if name == "CURRENT":
            raise KeyboardInterrupt
        write(name, content)

    with monkeypatch.context() as patched:
        patched.setattr(backend, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            store.promote(versions[1])
    assert store.current() == versions[0]
    assert [entry.version for entry in store.history()] == [versions[0]]
    store.promote(versions[2])
    assert store.rollback() == versions[0]


def test_a_home_without_a_promotion_log_can_be_rolled_back_to_what_it_served(
    store: ArtifactStore, versions: list[str]
) -> None:
    (store.root / "CURRENT").write_text(versions[0] + "\n")
    store.promote(versions[1])
    assert store.rollback() == versions[0]


def test_a_pointer_to_nowhere_is_rolled_back(store: ArtifactStore, versions: list[str]) -> None:
    store.promote(versions[0])
    (store.root / "CURRENT").write_text("20260101T000000000000Z-00000000\n")
    assert store.rollback() == versions[0]


def test_a_damaged_log_is_told_and_keeps_nobody_from_reading(store: ArtifactStore, versions: list[str]) -> None:
    store.promote(versions[0])
    (store.root / "PROMOTIONS").write_text("{")
    with pytest.raises(IndexDamaged, match="PROMOTIONS cannot be read"):
        store.promote(versions[1])
    assert store.current() == versions[0]


_PROMOTE_IN_TURN = """
import sys
from pathlib import Path
from shared.artifacts.store import ArtifactStore
from shared.errors import IndexDamaged, IndexMissing, PromotionRefused
root, first, second = sys.argv[1:]
store = ArtifactStore(Path(root), missing=IndexMissing, damaged=IndexDamaged)
won = 0
for _ in range(60):
    live = store.current()
    try:
        store.promote(second if live == first else first, expected=live)
        won += 1
    except PromotionRefused:
        pass
print(won)
"""


def test_of_two_processes_that_promote_at_once_one_wins_each_time(store: ArtifactStore, versions: list[str]) -> None:
    first, second, *_ = versions
    store.promote(first)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _PROMOTE_IN_TURN, str(store.root), first, second], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    won = sum(int(racer.communicate(timeout=60)[0]) for racer in racers)
    entries = json.loads((store.root / "PROMOTIONS").read_text())["promotions"]
    assert len(entries) == 1 + won  # nobody's promotion was written over
    assert all(one["version"] != next_one["version"] for one, next_one in pairwise(entries))


def test_pruning_keeps_the_last_ones_the_live_one_and_the_way_back(store: ArtifactStore) -> None:
    versions = [write_version(store) for _ in range(8)]
    for version in (versions[0], versions[2], versions[3]):
        store.promote(version)
    assert store.prune(2, protect=[versions[4]]) == [versions[0], versions[1], versions[5]]
    assert store.versions() == [versions[2], versions[3], versions[4], versions[6], versions[7]]
    assert store.prune(2, protect=[versions[4]]) == []
    assert store.rollback() == versions[2]


def test_a_pruned_version_stays_readable_for_those_who_have_it_open(store: ArtifactStore, versions: list[str]) -> None:
    path = store.path(versions[0]) / "photo.bin"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert versions[0] in store.prune(1)
        assert not path.exists()
        assert mapped[:256] == bytes(range(256))
    assert {entry.name for entry in store.root.iterdir()} == {".lock", versions[-1]}


def test_several_processes_may_prune_write_and_promote_at_once(store: ArtifactStore, versions: list[str]) -> None:
    script = (
        "import sys; from pathlib import Path; from shared.artifacts.store import ArtifactStore, MANIFEST\n"
        "from shared.errors import IndexDamaged, IndexMissing\n"
        "store = ArtifactStore(Path(sys.argv[1]), missing=IndexMissing, damaged=IndexDamaged)\n"
        "for _ in range(15):\n"
        "    with store.write() as draft: (draft.directory / MANIFEST).write_text('{}')\n"
        "    store.promote(draft.version)\n"
        "    store.prune(16)\n"  # the other's last one, sealed and not yet promoted, is always among them
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(store.root)]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert len(store.versions()) < len(versions) + 30
    for version in store.versions():
        store.verify(version)
