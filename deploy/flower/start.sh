#!/bin/sh
# Starts Flower: `start.sh [DIRECTORY OF SECRETS [OPTIONS]]`. Secrets go through the environment: command lines are for
# all to see.
set -eu
secrets=${1:-/run/secrets}
[ $# -eq 0 ] || shift
CELERY_BROKER_URL=$(cat "$secrets/lookalike_redis_url")
FLOWER_BASIC_AUTH=lookalike:$(cat "$secrets/flower_password")
export CELERY_BROKER_URL FLOWER_BASIC_AUTH
# Whoever has the password may look; workers are shut down and jobs cancelled by command, not by a page.
# A worker that ended is gone after a minute: its page could only say that it is unknown.
exec celery --config=celeryconfig flower --address=0.0.0.0 --port=5555 --read_only --purge_offline_workers=60 "$@"
