#!/usr/bin/env bash
# Celery 5.7.0, billiard 4.3.2: the exception that a traced task hands back is not of the class that was raised.
#
# Expected: `trace_task(...).retval.exception` of a task that raised `Ignore` (or anything else) is that exception, so that
# isinstance tells what happened.
# Seen: it is billiard's `ExceptionWithTraceback`, which keeps the real one in `.exc`; isinstance is false for every class
# one would ask for. `retval.type` is the class that was raised.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'celery==5.7.0' 'kombu==5.7.0' 'billiard==4.3.2' packaging
venv/bin/python - <<'PY'
import sys
from celery import Celery
from celery.app.trace import trace_task
from celery.exceptions import Ignore

app = Celery("app", broker="memory://", set_as_current=True)

@app.task
def ignored():
    raise Ignore("not now")

kept = trace_task(ignored, "id", (), {}, {}, app=app).retval
print(f"raised Ignore; kept {type(kept.exception).__name__}, its type {kept.type.__name__}")
sys.exit(0 if not isinstance(kept.exception, Ignore) and kept.type is Ignore else "changed: the exception is kept as it is")
PY
