"""The account of one run: what was accepted, what was killed when, and what became of each job."""

import statistics
from dataclasses import dataclass, field

from tests.benchmarks.ledger.journal import Runs
from tests.benchmarks.support.report import Row

_SUCCESS = ("succeeded", "SUCCESS")


@dataclass(frozen=True)
class Kill:
    """SIGKILL to a part; `at` in seconds since the epoch."""

    part: str
    at: float


@dataclass
class Account:
    """Written by clients while a run lasts; numbers are those of jobs, times seconds since the epoch.

    Attributes:
        keeps_outcomes: whether the system records how a job ended.
        accepted: when each job was accepted.
        sent: when the submit was sent that was accepted.
        tries: when each submit was sent, whatever it was answered.
        in_doubt: submits that broke off or failed so that the job may be accepted or not; each was sent again under
            the same id.
        seen: the outcome of each job when it was first read as ended.
        last: the outcome when everything was over; None: not known.
        after_restart: jobs that ended only after the workers had been started anew.
        undelivered: jobs without an end whose messages are still in the broker.
    """

    keeps_outcomes: bool
    began_at: float = 0.0
    over_at: float = 0.0
    accepted: dict[int, float] = field(default_factory=dict)
    sent: dict[int, float] = field(default_factory=dict)
    tries: list[float] = field(default_factory=list)
    in_doubt: int = 0
    seen: dict[int, str] = field(default_factory=dict)
    last: dict[int, str | None] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    after_restart: int = 0
    undelivered: set[int] = field(default_factory=set)

    def row(self, runs: Runs) -> Row:
        """One line of the table; None where the system keeps no outcomes."""
        first_kill = self.kills[0].at if self.kills else self.over_at
        undisturbed = sum(at < first_kill for number, at in runs.first_end.items() if number in self.accepted)
        changed = sum(self.last.get(number) != outcome for number, outcome in self.seen.items())
        return {
            "accepted": len(self.accepted),
            "kills": len(self.kills),
            "lost": sum(each not in runs.first_end and each not in self.undelivered for each in self.accepted),
            "run_twice": sum(runs.began[number] > 1 for number in self.accepted),
            "to_its_end_twice": sum(runs.ended[number] > 1 for number in self.accepted),
            "ended_twice": changed if self.keeps_outcomes else None,
            "unanswered": sum(self.last.get(each) is None for each in self.accepted) if self.keeps_outcomes else None,
            "failed": sum(not outcome.startswith(_SUCCESS) for outcome in self.last.values() if outcome)
            if self.keeps_outcomes
            else None,
            "in_doubt": self.in_doubt,
            "after_restart": self.after_restart,
            "undelivered": len(self.undelivered),
            "jobs_per_s": len(self.accepted) / (self.over_at - self.began_at),
            "undisturbed_per_s": undisturbed / (first_kill - self.began_at),
        }

    def recoveries(self, runs: Runs) -> list[Row]:
        """Tell how many seconds from a kill until a job is accepted again, and until every job it met has ended.

        The former counts from the first submit after the kill: clients that wait for their jobs send none. A job is
        met by the first kill between its acceptance and its end; lost ones have no time.
        """
        kills = sorted(self.kills, key=lambda kill: kill.at)
        accepted_again = [self._accepted_again_after(kill.at) for kill in kills]
        done = [0.0] * len(kills)
        for number, ended_at in runs.first_end.items():
            accepted_at = self.accepted.get(number, ended_at)
            met = next((i for i, kill in enumerate(kills) if accepted_at < kill.at), None)
            if met is not None and ended_at > kills[met].at:
                done[met] = max(done[met], ended_at - kills[met].at)
        return [
            {
                "killed": part,
                "kills": len(mine),
                "accepts_s": statistics.median(accepted_again[i] for i in mine),
                "accepts_s_most": max(accepted_again[i] for i in mine),
                "all_ended_s": statistics.median(done[i] for i in mine),
                "all_ended_s_most": max(done[i] for i in mine),
            }
            for part in dict.fromkeys(kill.part.partition("-")[0] for kill in kills)
            if (mine := [i for i, kill in enumerate(kills) if kill.part.partition("-")[0] == part])
        ]

    def _accepted_again_after(self, moment: float) -> float:
        accepted_at = (at for number, at in self.accepted.items() if self.sent[number] > moment)
        tried_at = (at for at in self.tries if at > moment)
        return min(accepted_at, default=self.over_at) - min(tried_at, default=self.over_at)
