"""`lookalike duplicates` as an operator types it; the service is a thread that ends the job"""

from pathlib import Path

import redis

from shared.duplicates.report import write_report
from shared.jobs.contract import Job, JobKind
from shared.jobs.duplicates_contract import (
    GROUPS_A_PAGE,
    DuplicateGroup,
    DuplicateImage,
    DuplicateLabel,
    DuplicatesRequest,
    DuplicatesResult,
)
from shared.jobs.store import JobStore
from tests.integration.pipeline.test_cli_index import Service, home, run, run_json
from tests.support.versions import write_version

__all__ = ["home"]  # a fixture

IMAGES = [DuplicateImage(image_id=f"p{n}", listing_id=f"l{n}") for n in range(10)]
GROUP = DuplicateGroup(label=DuplicateLabel.SAME_PICTURE, n_images=10, images=IMAGES, n_pairs=45, pairs=[])
N_GROUPS = GROUPS_A_PAGE + 1


class DuplicatesService(Service):
    kind = JobKind.DUPLICATES


def test_every_group_is_printed_however_many_pages_there_are(client: redis.Redis, jobs: JobStore, home: Path) -> None:
    def end(jobs: JobStore, job: Job) -> None:
        write_report(home, job.id, [GROUP] * N_GROUPS, ttl_s=3600)
        found = DuplicatesResult(
            index_version="v",
            n_photos=99,
            n_unreadable=0,
            n_groups=N_GROUPS,
            groups_by_label={DuplicateLabel.SAME_PICTURE: N_GROUPS},
            n_refuted=3,
            groups=[GROUP] * GROUPS_A_PAGE,
            next_cursor="1",
        )
        jobs.succeed(job, found)

    version = write_version(home)
    service = DuplicatesService(client, jobs, end)
    service.start()
    job = run_json("duplicates", "--since", version, "--same-thing-score", "0.9")
    service.join()
    assert (len(job["result"]["groups"]), job["result"]["next_cursor"]) == (N_GROUPS, None)
    assert service.request == DuplicatesRequest(since=version, same_thing_score=0.9)
    service = DuplicatesService(client, jobs, end)
    service.start()
    lines = run("duplicates").stdout.splitlines()
    service.join()
    assert lines[0] == f"99 photos: {N_GROUPS} same_picture; 3 pairs refuted"
    assert lines[1].startswith("  same_picture: p0 (l0), p1 (l1)")
    assert lines[1].endswith("and 2 more")
    assert len(lines) == 1 + N_GROUPS


def test_a_version_that_is_not_there_is_refused_before_anything_is_submitted(jobs: JobStore) -> None:
    assert run_json("duplicates", "--since", "x", code=1)["error"]["code"] == "version_not_found"
    assert run_json("duplicates", "--no-wait")["status"] == "queued"
