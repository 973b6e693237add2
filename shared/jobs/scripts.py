"""The scripts of the job store: each is one transition, so nothing can come between its parts. See `lua/`.

KEYS and the first three ARGV are the same for all of them (`prelude.lua`), and `JobStore.run` gives them.

Scripts that end or move on jobs may run when Redis is full: they are what makes room again.
"""

from pathlib import Path

from shared.jobs.contract import JobError
from shared.jobs.records import UNREAD_ENOUGH
from shared.lua import load_script

_EXPIRED = JobError(
    code="deadline_exceeded", detail="the job was not finished before its deadline", retryable=True
).model_dump_json()

# Keeping the photos of failed jobs lets them be retried; a model that fails every job must not fill Redis with them.
_MAX_RETAINED = 200

# A backlog's pace is measured between two ends with work waiting; a longer gap means that nobody worked.
_LONGEST_GAP_S = 10

# A claim that meets a backlog of jobs past their deadline must not hold up everybody else in Redis while it ends them.
_EXPIRED_A_CLAIM = 200

# A claim passes over so many photos that its worker has no model for yet; what is behind them waits for other workers.
_PASSED_A_CLAIM = 200

# One in so many claims looks at bulk jobs first, so that they are never starved.
_BULK_TURN = 8


def _script(
    name: str, *, flags: tuple[str, ...] = ("allow-oom",), include: tuple[str, ...] = (), **constants: int | str
) -> str:
    return load_script(
        Path(__file__).parent / "lua" / name,
        flags=flags,
        include=("prelude.lua", *include),
        constants={"MAX_RETAINED": _MAX_RETAINED, "EXPIRED_ERROR": _EXPIRED, **constants},
    )


CREATE = _script(
    "create.lua",
    flags=(),
    include=("call_idle.lua",),
    UNREAD_ENOUGH=UNREAD_ENOUGH,
)
CLAIM = _script("claim.lua", EXPIRED_A_CLAIM=_EXPIRED_A_CLAIM, PASSED_A_CLAIM=_PASSED_A_CLAIM, BULK_TURN=_BULK_TURN)
CLAIM_JOB = _script("claim_job.lua")
EXTEND = _script("extend.lua")
FINISH = _script("finish.lua", LONGEST_GAP_S=_LONGEST_GAP_S)
CANCEL = _script("cancel.lua")
REAP = _script("reap.lua")
RELEASE = _script("release.lua")
PROGRESS = _script("progress.lua")
EXPIRE = _script("expire.lua")
BACKLOG = _script("backlog.lua", flags=("allow-oom", "no-writes"))
PLACE = _script("place.lua", flags=("allow-oom", "no-writes"))
