"""Room for the embeddings of a catalogue that is too large for memory"""

import os
import sys
from pathlib import Path

import pytest

from shared.reindex import build


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the files of this process in /proc")
def test_room_on_disk_is_taken_before_it_is_written_to_and_is_nobodys_when_the_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_IN_MEMORY_BYTES", 0)
    with build._matrix(tmp_path, 1000, 256, 13) as embeddings:
        assert list(tmp_path.iterdir()) == []
        opened = [Path("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
        room = next(fd.stat() for fd in opened if fd.is_symlink() and os.readlink(fd).startswith(str(tmp_path)))
        assert room.st_blocks * 512 >= embeddings.vectors.nbytes == 1000 * 256 * 4
        embeddings.vectors[:] = 1
