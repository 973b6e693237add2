"""A file is replaced as a whole or stays as it was."""

from pathlib import Path

import pytest

from shared.atomic_files import write_atomically

OPTIONS = [
    pytest.param({}, id="plain"),
    pytest.param({"fsync": True}, id="fsync"),
    pytest.param({"many_writers": True}, id="many writers"),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_old_content_stays_until_the_new_is_complete(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with write_atomically(path, **options) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("options", OPTIONS)
def test_nothing_is_left_of_a_failed_write(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def fail() -> None:
        with write_atomically(path, **options) as temporary:
            temporary.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "redis.url"
    (tmp_path / ".redis.url.tmp").write_text("half, and readable by all")
    with write_atomically(path) as temporary:
        temporary.touch(mode=0o600, exist_ok=False)
    assert path.stat().st_mode & 0o777 == 0o600


def test_several_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "digests.json"
    with write_atomically(path, many_writers=True) as one, write_atomically(path, many_writers=True) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
