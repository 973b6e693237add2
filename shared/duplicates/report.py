"""Groups that duplicates jobs found, in pages: files of the artifact store. A job's record has the first page."""

from pydantic import TypeAdapter

from shared.artifacts import Location
from shared.artifacts.backends import backend_at
from shared.jobs.duplicates_contract import GROUPS_A_PAGE, DuplicateGroup

_KIND = "duplicates"
_GROUPS: TypeAdapter[list[DuplicateGroup]] = TypeAdapter(list[DuplicateGroup])


def write_report(storage: Location, job_id: str, groups: list[DuplicateGroup], *, ttl_s: float) -> None:
    """Write the groups after the first page, and remove reports of jobs that nobody can ask for any more.

    Args:
        storage: of the installation.
        job_id: of the duplicates job.
        groups: all of them, in order.
        ttl_s: seconds that a report is kept.

    Raises:
        ArtifactUnwritable, StoreUnavailable: it cannot be written.
    """
    files = backend_at(storage, _KIND)
    files.sweep(ttl_s)
    for start in range(GROUPS_A_PAGE, len(groups), GROUPS_A_PAGE):
        page = groups[start : start + GROUPS_A_PAGE]
        files.write(_name(job_id, start // GROUPS_A_PAGE), _GROUPS.dump_json(page, exclude_none=True))


def read_report(storage: Location, job_id: str, page: int) -> list[DuplicateGroup]:
    """Read a page of groups, 1 being the one after those in the job's result.

    Raises:
        FileNotFoundError: there is none.
        StoreUnavailable: the store does not answer.
    """
    file = backend_at(storage, _KIND).at(_name(job_id, page))
    return _GROUPS.validate_json(file.read_bytes())


def n_pages(n_groups: int) -> int:
    """Count the pages of a report, with the first."""
    return max(1, -(-n_groups // GROUPS_A_PAGE))


def _name(job_id: str, page: int) -> str:
    return f"{job_id}/{page:06d}.json"
