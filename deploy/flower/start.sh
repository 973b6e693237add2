#!/bin/sh
# Starts Flower: `start.sh [DIRECTORY OF SECRETS]`. They go through the environment: command lines are for all to see.
set -eu
secrets=${1:-/run/secrets}
CELERY_BROKER_URL=$(cat "$secrets/lookalike_redis_url")
FLOWER_BASIC_AUTH=lookalike:$(cat "$secrets/flower_password")
export CELERY_BROKER_URL FLOWER_BASIC_AUTH
# Workers take no commands: `read_only` says so on the page.
exec celery --config=celeryconfig flower --address=0.0.0.0 --port=5555 --read_only
