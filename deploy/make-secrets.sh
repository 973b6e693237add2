#!/bin/sh
# Makes the passwords of a compose installation the first time: `make-secrets.sh DIRECTORY`. Later runs keep them.
set -eu
cd "$1"
[ ! -s lookalike_redis_url ] || exit 0

password() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

umask 0333 # the containers that read them run as different users, and others do not see this directory
rm -f redis.conf flower_password grafana_password metrics_key
redis_password=$(password)
echo "requirepass $redis_password" > redis.conf
password > flower_password
password > grafana_password
: > metrics_key # an API key for Prometheus goes here, once there are keys
# Last: it tells later runs that all is there.
printf 'redis://:%s@redis:6379/0' "$redis_password" > .new
mv .new lookalike_redis_url
