# Flotilla's commands. Every one makes ready what it needs and takes it from .venv; none needs an activated environment.

PYTEST := .venv/bin/python -m pytest -q --durations=5
WEB    := services/api-gateway/web

# A test's folder says what it costs: unit is pure; integration uses real databases, brokers and sockets.
UNIT        := $(wildcard */tests/unit services/*/tests/unit)
ELSEWHERE   := tests/architecture tests/scenarios tests/browser
INTEGRATION := $(wildcard */tests/integration services/*/tests/integration) \
               $(filter-out $(ELSEWHERE),$(patsubst %/,%,$(sort $(dir $(wildcard tests/*/test_*.py)))))

.PHONY: help up test check unit integration scenarios browser web web-check chaos bench lock compose-test clean .ready .ready-for-tests

help: ## this menu
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

up: .ready ## run Flotilla here: prints a link that opens the web chat; Ctrl-C ends it
	@.venv/bin/flotilla up

test: .ready-for-tests ## every check, as CI runs them
	@CI=true $(MAKE) --no-print-directory --keep-going check unit web-check integration scenarios browser

check: .ready ## format, lint, types, layers, budgets
	@echo '== format, lint'
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@echo '== types'
	@.venv/bin/mypy conftest.py tools tests $(wildcard */src services/*/src)
	@for tests in $(wildcard */tests services/*/tests); do .venv/bin/mypy $$tests || exit 1; done
	@echo '== layers'
	@.venv/bin/lint-imports
	@echo '== budgets, walk, schemas'
	@$(PYTEST) tests/architecture

unit: .ready ## tests of pure code, in seconds
	@echo '== unit tests'
	@$(PYTEST) $(or $(UNIT),$(error there are no unit tests))

integration: .ready-for-tests ## tests on real PostgreSQL, Redis and Kafka
	@echo '== integration tests'
	@$(PYTEST) $(or $(INTEGRATION),$(error there are no integration tests))

scenarios: .ready-for-tests ## whole flows: in one process, and as processes on Kafka
	@echo '== scenarios'
	@$(PYTEST) tests/scenarios

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
