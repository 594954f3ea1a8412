# Everything here runs in the tree. `make` alone lists the targets.
SHELL := /bin/sh
PY := .venv/bin/python
.DEFAULT_GOAL := help
# Python keeps what it has compiled: the tests start some hundred processes of the same modules.
export PYTHONDONTWRITEBYTECODE :=
.PHONY: help deploy setup lint types imports abi test test-deep test-docs test-fresh test-contracts demo \
        clean-demo lock format fuzz coverage slither prove bench-gas bench-auction bench-reputation \
        bench-auction-economics bench-gateway bench-peers bench-transcripts test-networks-1 \
        test-networks-2

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-23s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install what is missing, in this folder (.venv, node_modules)
	@tools/setup.sh

lint: setup  ## ruff, format, import rules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports --no-cache

types: setup  ## mypy --strict
	$(PY) -m mypy

deploy: setup  ## all contracts to NETWORK=name (docs/deploy.md), then the check; YES=1 asks nothing
	tools/npm run -s deploy -- --network "$(NETWORK)" $(if $(YES),--yes)
	tools/npm run -s verification -- --network "$(NETWORK)"
	.venv/bin/pinaivu roles --on "$(NETWORK)" --rpc "$$PINAIVU_RPC_URL"

test-contracts: setup  ## Solidity tests, lint, third-party vectors, committed ABIs
	tools/npm run -s lint
	tools/npm run -s abi:check
	tools/npm run -s vectors
	tools/npm run -s test

# Tests on whole networks of processes: two halves that take about as long, side by side. Each test
# ends with an audit of its network's whole log, so those that ask most often come last.
HALF = $(addprefix tests/e2e/test_,operations.py payers.py explorer_browser.py)
LAST = $(addprefix tests/e2e/test_,exploration.py two_logs.py)
NETWORKS_1 = $(filter-out $(HALF) $(LAST),$(sort $(wildcard tests/e2e/test_*.py))) $(LAST)
NETWORKS_2 = $(HALF) tests/docs tests/conformance
# One more than cores, because many tests wait for processes.
WORKERS = $$(cores=$$(nproc); echo $$((cores < 8 ? cores + 1 : 8)))

test: lint types test-contracts  ## every test and check
	$(PY) -m pytest -n $(WORKERS) --dist=loadfile --no-loadscope-reorder \
	  --ignore=tests/e2e --ignore=tests/docs --ignore=tests/conformance
	$(MAKE) -j2 --output-sync=line test-networks-1 test-networks-2

test-networks-1: setup
	$(PY) -m pytest $(NETWORKS_1)

test-networks-2: setup
	$(PY) -m pytest $(NETWORKS_2)

demo: setup  ## the whole network, and a first request; ONCE=1 ends after it
	@.venv/bin/pinaivu up --network .demo $(if $(ONCE),--once)

bench-gas: setup  ## gas of every operation; WRITE=1 accepts the figures as the snapshot
	$(PY) -m bench.gas $(if $(WRITE),--write)

bench-auction: setup  ## live and standing auctions, and the book at 10,000; DEEP=1 with 200 nodes
	$(PY) -m bench.auction $(if $(DEEP),--deep)

bench-peers: setup  ## how soon a killed, frozen or cut-off peer is noticed, and back; RUNS=n
	$(PY) -m bench.peers $(if $(RUNS),--runs $(RUNS))

bench-transcripts: setup  ## what storing and serving an auction's transcript and book costs
	$(PY) -m bench.transcripts

bench-reputation: setup  ## over-promisers, newcomers and liars in simulated markets
	$(PY) -m bench.reputation

bench-gateway: setup  ## the gateway beside a LiteLLM proxy and the bare engine; ROUNDS=n requests per arm
	$(PY) -m bench.gateway $(if $(ROUNDS),--rounds $(ROUNDS))

bench-auction-economics: setup  ## gain of each strategy over truth; DEEP=1 for ten times as many auctions
	$(PY) -m bench.auction_economics $(if $(DEEP),--deep) $(if $(UPLIFT),--uplift-ppm $(UPLIFT))

clean-demo:  ## forget the demo's chain, keys, databases and logs
	rm -rf .demo

test-docs: setup  ## run every marked shell block of README and docs in an empty folder
	$(PY) -m pytest -q tests/docs

test-fresh:  ## both commands of the README in a fresh Debian root, as an ordinary user (needs root)
	tools/test_fresh.sh

test-deep: test fuzz coverage slither prove  ## longer searches, and every analysis of the contracts
	$(PY) -m pytest -q tests/property --hypothesis-profile=deep
	$(PY) -m bench.gateway_load

fuzz: setup  ## Solidity fuzz tests and invariants, 10,000 runs each
	tools/npm run -s test:deep

coverage: setup  ## bounds on what the Solidity tests reach of the contracts
	tools/analyse coverage

slither: setup  ## static analysis; every finding fixed or explained in tools/analysis/triage.toml
	tools/analyse slither

prove: setup  ## symbolic proofs of row decoding and sums (tests/proofs)
	tools/analyse prove

format: setup  ## rewrite Python and Solidity in the project's format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	tools/npm run -s format

lock: setup  ## resolve the Python dependencies anew into requirements/*.lock
	.venv/bin/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header \
	  --extra dev --python-version 3.11 pyproject.toml -o requirements/dev.lock
	.venv/bin/uv pip compile -q --no-deps --generate-hashes --no-emit-index-url --no-header \
	  requirements/engine.in -o requirements/engine.lock
	.venv/bin/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header \
	  requirements/uv.in -o requirements/uv.lock
	.venv/bin/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 requirements/analysis.in -o requirements/analysis.lock
	.venv/bin/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 requirements/litellm.in -o requirements/litellm.lock
