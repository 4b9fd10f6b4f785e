#!/usr/bin/env bash
# Plays the scenarios against the containers of docker-compose.yaml. Builds the images, starts them as a separate project
# on a free port, and removes the project at the end. Needs Docker with its compose plugin.
#
#   tools/compose-test.sh          on Kafka
#   tools/compose-test.sh knative  on mock-eventing, over HTTP
set -euo pipefail
cd "$(dirname "$0")/.."

bus=${1:-kafka}
project=flotilla-test
logs=build/compose-test.log
python=.venv/bin/python

fail() {
  printf '\nThe containers cannot be tested here.\n' >&2
  printf '  %s\n' "$@" >&2
  exit 1
}

step() { printf '== %s\n' "$*"; }

compose() { docker compose --project-name $project --env-file /dev/null --profile "$bus" "$@"; }

start() { compose --progress quiet up --detach --wait --wait-timeout 300 --scale "$scale" "$@"; }

finish() {
  local status=$?
  trap - EXIT
  if [ $status -ne 0 ]; then
    { compose ps --all && compose logs --no-color --timestamps; } >$logs 2>&1 || true
    printf '\nThe logs of all containers are in %s\n' "$logs" >&2
  fi
  step 'removing the containers'
  compose down --volumes --remove-orphans --timeout 15 >/dev/null 2>&1 || true
  exit $status
}

play() { # VARIABLE... -- PYTEST ARGUMENT...
  local variables=()
  while [ "$1" != -- ]; do variables+=("$1") && shift; done
  shift
  env "${variables[@]}" FLOTILLA_TEST_KEY="$FLOTILLA_AUTH_DEV_KEY" $python -m pytest -q tests/scenarios/test_scenarios.py "$@"
}

command -v docker >/dev/null || fail 'Docker was not found. Install Docker Engine 26 or newer, or Docker Desktop: docs.docker.com/get-docker'
docker compose version >/dev/null 2>&1 || fail 'Docker has no compose plugin. Debian: apt-get install docker-compose; elsewhere: docker-compose-plugin'
answer=$(docker info --format '{{.ServerVersion}}' 2>&1 | tail -n 1) || fail 'Docker does not answer. Start it, or name it in DOCKER_HOST. It answered:' "$answer"

case $bus in
  kafka) FLOTILLA_BUS_URL=kafka://kafka:9092 scale=kafka=1 ;;
  knative) FLOTILLA_BUS_URL=http://mock-eventing:8080 scale=kafka=0 ;;
  *) fail "There is no bus $bus: it is kafka or knative" ;;
esac
FLOTILLA_PORT=$($python -c 'from local_backends.server import free_port; print(free_port())')
FLOTILLA_AUTH_DEV_KEY=$($python -c 'import secrets; print(secrets.token_hex(16))')
FLOTILLA_AGENT_CONFIGS=./tests/scenarios/agent-configs
FLOTILLA_REQUEST_SECONDS=900
export FLOTILLA_BUS_URL FLOTILLA_PORT FLOTILLA_AUTH_DEV_KEY FLOTILLA_AGENT_CONFIGS FLOTILLA_REQUEST_SECONDS
unset OPENAI_API_KEY OPENAI_BASE_URL COMPOSE_FILE COMPOSE_PROFILES
url=http://localhost:$FLOTILLA_PORT

mkdir -p build
trap finish EXIT
compose down --volumes --remove-orphans --timeout 15 >/dev/null 2>&1
step 'building the images'
compose --progress plain build >build/compose-build.log 2>&1 || { tail -n 30 build/compose-build.log >&2; exit 1; }
step 'starting the containers'
start
step "the scenarios, at $url, on $bus"
play FLOTILLA_TEST_URL="$url" --
step 'with requests that expire after a second and a half'
FLOTILLA_REQUEST_SECONDS=1.5 start --no-deps request-manager
play FLOTILLA_TEST_URL="$url" FLOTILLA_TEST_HASTY_URL="$url" -- -k short_lived
step 'the audit log is intact, and the witness has signed it'
compose --progress quiet stop --timeout 20 witness # it signs once more at its end
compose run --rm --no-deps --no-TTY witness audit verify
compose run --rm --no-deps --no-TTY witness audit verify --json | $python -c \
  'import json, sys; assert all(chain["anchored"] for chain in json.load(sys.stdin)["chains"]), "a chain has no anchor"'
step 'on a signal to stop, each of our processes ends with status 0'
compose --progress quiet stop --timeout 20
for service in api-gateway request-manager agent-service witness; do
  status=$(docker inspect --format '{{.State.ExitCode}}' $project-$service-1)
  printf '  %-16s status %s\n' $service "$status"
  [ "$status" = 0 ]
done
