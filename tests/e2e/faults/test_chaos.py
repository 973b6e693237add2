"""Half a minute of `make chaos`: whatever is killed, nothing is lost and nothing is done twice."""

from pathlib import Path

from tests.e2e.faults.chaos import Soak
from tests.e2e.faults.report import Plan
from tests.support.places import copy_installation


def test_half_a_minute_of_random_faults_loses_nothing_and_does_nothing_twice(
    home: Path, photos: list[Path], tmp_path: Path
) -> None:
    copy_installation(home, tmp_path / "home")
    images = {photo.stem: photo.read_bytes() for photo in photos}
    report = Soak(tmp_path / "home", tmp_path, images, Plan(duration_s=25)).run(print)
    print(report)
    assert report.passed, str(report)
    assert report.faults.total() > 2
