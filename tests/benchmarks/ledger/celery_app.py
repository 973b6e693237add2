"""Stock Celery behind a small Flask API, as its users run it: what the ledger compares the service with.

`python -m tests.benchmarks.ledger.celery_app` is a worker, `celery_app:flask_app()` the API. What is not set here is as
Celery comes.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from celery import Celery

from tests.benchmarks.ledger.journal import Journal

if TYPE_CHECKING:
    from flask import Flask

_TASK = "ledger.run"


@dataclass(frozen=True)
class Setting:
    """How Celery is set.

    Args:
        acks_late: acknowledge a message when its task has ended, and not when it begins.
        results: keep results on the broker's Valkey.
        visibility_timeout_s: a message unacknowledged for so long is delivered again.
    """

    broker: str
    journal: str
    sleep_s: float
    acks_late: bool
    results: bool
    visibility_timeout_s: float

    def environment(self) -> dict[str, str]:
        return {f"LEDGER_{name.upper()}": str(value) for name, value in vars(self).items()}

    @classmethod
    def from_environment(cls) -> Self:
        told = {name: os.environ[f"LEDGER_{name.upper()}"] for name in cls.__dataclass_fields__}
        return cls(
            broker=told["broker"],
            journal=told["journal"],
            sleep_s=float(told["sleep_s"]),
            acks_late=told["acks_late"] == "True",
            results=told["results"] == "True",
            visibility_timeout_s=float(told["visibility_timeout_s"]),
        )


def make_app(setting: Setting) -> Celery:
    """The application with its one task."""
    app = Celery("ledger", broker=setting.broker, backend=setting.broker if setting.results else None)
    app.conf.update(
        broker_transport_options={"visibility_timeout": setting.visibility_timeout_s},
        broker_connection_retry_on_startup=True,
        task_acks_late=setting.acks_late,
        task_reject_on_worker_lost=setting.acks_late,
    )
    journal = Journal(Path(setting.journal))

    @app.task(name=_TASK)  # type: ignore[untyped-decorator]
    def run(number: int) -> None:
        journal.note("began", number)
        time.sleep(setting.sleep_s)
        journal.note("ended", number)

    return app


def flask_app() -> "Flask":
    """PUT /jobs/ID with a job's number submits it as the task of that id; GET says how it ended."""
    from flask import Flask, request
    from kombu.exceptions import OperationalError

    api = Flask(__name__)
    app = make_app(Setting.from_environment())

    @api.put("/jobs/<task_id>")
    def submit(task_id: str) -> tuple[dict[str, Any], int]:
        try:
            app.tasks[_TASK].apply_async((int(request.get_data()),), task_id=task_id)
        except OperationalError as exc:  # of the last of Celery's own tries; an earlier one may have arrived
            return {"error": str(exc)}, 503
        return {"id": task_id}, 202

    @api.get("/jobs/<task_id>")
    def outcome(task_id: str) -> dict[str, Any]:
        result = app.AsyncResult(task_id)
        return {"status": result.state, "finished_at": str(result.date_done)}

    return api


if __name__ == "__main__":
    make_app(Setting.from_environment()).worker_main(["worker", "--loglevel=WARNING", *sys.argv[1:]])
