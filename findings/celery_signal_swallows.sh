#!/usr/bin/env bash
# Celery 5.7.0: an exception that a listener of `celeryd_init` raises does not keep the worker from starting.
#
# Expected: the signal is sent before the worker is set up, so that an error there (a model that cannot be loaded, a setting
# that is wrong) keeps it from starting, with an exit code that a supervisor sees.
# Seen: the listener is called and raises, and the worker goes on, becomes ready, and would take messages that it is not
# prepared for.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'celery==5.7.0' 'kombu==5.7.0' packaging
cat > app.py <<'PY'
from pathlib import Path

from celery import Celery
from celery.signals import celeryd_init, worker_ready

app = Celery("app", broker="memory://")

@celeryd_init.connect
def prepare(**_):
    Path("prepared").write_text("an error is raised now")
    raise RuntimeError("the model cannot be loaded")

@worker_ready.connect
def ready(**_):
    Path("ready").write_text("consumes")
PY
timeout 10 venv/bin/python -m celery -A app worker -P solo -l ERROR > out.txt 2>&1 && code=0 || code=$?
echo "listener called: $(test -e prepared && echo yes || echo no); worker became ready: $(test -e ready && echo yes || echo no)"
test -e prepared && test -e ready && test "$code" -eq 124 || { echo "changed: the worker ended with $code"; exit 1; }
