# Flotilla's commands. Every one makes ready what it needs and takes it from .venv; none needs an activated environment.

SAMPLE ?=
PYTEST := .venv/bin/python -m pytest -q --durations=10 $(SAMPLE)
WEB    := services/api-gateway/web
LANES  := check,unit,models,integration web-check,scenarios,chaos-short,browser

# A test's folder says what it costs: unit is pure; integration uses real databases, brokers and sockets.
UNIT        := $(wildcard */tests/unit services/*/tests/unit) tests/architecture tests/tools
FLEETS      := tests/scenarios tests/processes
ELSEWHERE   := $(FLEETS) tests/models tests/architecture tests/tools tests/chaos tests/browser
INTEGRATION := $(wildcard */tests/integration services/*/tests/integration) \
               $(filter-out $(ELSEWHERE),$(patsubst %/,%,$(sort $(dir $(wildcard tests/*/test_*.py)))))

.PHONY: help up test test-all quick check unit models integration scenarios browser web web-check chaos-short chaos bench lock \
        compose-test clean .ready .ready-for-tests

help: ## this menu
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

up: .ready ## run Flotilla here: prints a link that opens the web chat; Ctrl-C ends it
	@.venv/bin/flotilla up

test: .ready-for-tests $(WEB)/node_modules ## every check as CI runs it, with a sample of the long tests
	@CI=true SAMPLE=--sample .venv/bin/python -m tools.lanes $(LANES)

test-all: .ready-for-tests $(WEB)/node_modules ## the same without leaving anything out
	@CI=true SAMPLE= .venv/bin/python -m tools.lanes $(LANES)

quick: check ## format, lint, types, and the unit tests of the packages that differ from main
	@tests="$$(.venv/bin/python -m tools.changed)"; \
	  if [ -n "$$tests" ]; then $(PYTEST) $$tests; else echo 'nothing differs from main'; fi

check: .ready ## format, lint, types
	@echo '== format, lint'
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@echo '== types'
	@.venv/bin/python -m tools.check_types

unit: .ready ## tests of pure code, layers, budgets, the walk, schemas
	@echo '== unit tests'
	@$(PYTEST) $(UNIT)

models: .ready-for-tests ## model tests over all orders of steps, and the tests that find planted faults
	@echo '== models'
	@$(PYTEST) tests/models

integration: .ready-for-tests ## tests on real PostgreSQL, Redis and Kafka, two files at a time
	@echo '== integration tests'
	@$(PYTEST) -n 2 --dist loadfile $(or $(INTEGRATION),$(error there are no integration tests))

scenarios: .ready-for-tests ## whole flows: in one process, and as processes that are killed
	@echo '== scenarios'
	@$(PYTEST) $(FLEETS)

chaos-short: .ready-for-tests ## the short form of every fault of `make chaos` (SEED=7)
	@echo '== chaos'
	@$(PYTEST) tests/chaos

browser: .ready-for-tests ## the web chat in a real browser
	@echo '== browser'
	@$(PYTEST) tests/browser

web: $(WEB)/node_modules ## build the web chat into the gateway
	@cd $(WEB) && npm run build

web-check: .ready-for-tests $(WEB)/node_modules ## types, lint and tests of the web chat, and that its build is committed
	@echo '== web chat'
	@cd $(WEB) && npm run check

compose-test: .ready ## the scenarios against a container for each service: needs Docker (`BUS=knative`: without Kafka)
	@tools/compose-test.sh $(BUS)

chaos: .ready-for-tests ## kill and break everything, and keep the score in build/chaos.json (SEED=7 ONLY="F1 F4")
	@.venv/bin/python -m tests.chaos $(ONLY)

bench: .ready-for-tests ## figures, as ratios to a baseline of the same run, into build/bench.json
	@.venv/bin/python -m tests.bench

lock: ## write constraints.txt again (`make lock UP=--upgrade` for the newest versions)
	@tools/constraints.sh $(UP)

clean: ## remove what the commands made, but for your data in .flotilla
	rm -rf .venv .cache build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache $(WEB)/node_modules

.ready:
	@tools/setup.sh

.ready-for-tests:
	@tools/setup.sh test

$(WEB)/node_modules: $(WEB)/package-lock.json
	@echo '== packages of the web chat'
	@cd $(WEB) && npm ci --no-audit --no-fund && touch node_modules
