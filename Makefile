# The commands for people and for CI. `make` without a target lists them.
PYTHON ?= python3
BIN := .venv/bin
# Connections to this machine bypass the environment's proxy.
DIRECT := localhost,127.0.0.1,::1
export no_proxy := $(DIRECT),$(or $(no_proxy),$(NO_PROXY))
export NO_PROXY := $(no_proxy)
LOCKED := requirements/dev.txt requirements/uv.txt
BENCH := .local/bench
LOAD := .local/load
PLANNER := .local/planner
# Tests whose result depends on the version of RabbitMQ or NGINX: connections, dead letters, definitions, configuration.
BROKER_TESTS := $(addprefix tests/integration/test_,$(addsuffix .py,broker_away dead_letters definitions life liveness \
	lost_workers malformed nginx platform_configuration publisher queues records start upgrade versions))
# Five processes on two cores, because one or two of them wait for servers. worksteal: most modules stay in one process,
# so that the servers of a module are started once.
PYTEST := $(BIN)/python -m pytest --numprocesses 5 --dist worksteal
TESTS := tests/unit apps/tasks tests/integration tests/manifests minicluster
CLUSTER_STATE ?= .local/cluster
# 20 minutes, because a test may include the start of its cluster.
E2E_PYTEST := $(BIN)/python -m pytest --verbose --timeout 1200
# `make e2e` runs pytest twice in parallel, each on its own cluster. pytest runs the files in this order.
# The files between the two tests of `original` do not affect the workers, which need 450 s for the burst of `original`.
E2E_SCALING := $(addprefix tests/e2e/test_,$(addsuffix .py,local scaling rollout load))
E2E_ORIGINAL := $(addprefix tests/e2e/test_,original.py::test_burst_is_accepted cluster.py admission.py network.py \
	existing.py keda.py flux.py original.py::test_two_workers_finish_the_burst_without_scaling trouble.py fallback.py ingress.py)
E2E_RUNS = $(MAKE) --no-print-directory --jobs 2 e2e-scaling e2e-original
# Prefixes the output of a run with its name. sed ignores Ctrl-C to print pytest's last lines. pytest ends with its shell.
e2e-run = exec env CLUSTER_STATE="$(2)" PYTHONUNBUFFERED=1 bash -o pipefail -c 'setpriv --pdeathsig=INT $(E2E_PYTEST) $(1) 2>&1 \
	| (trap "" INT; exec sed --unbuffered "s/^/$@: /")'

.DEFAULT_GOAL := help
.PHONY: help install add remove lock upgrade up demo post rabbitmq-ui dead-letters requeue discard contract-baseline test test-unit test-planner test-integration test-thorough test-brokers test-load test-replace chaos chaos-quick abuse abuse-quick test-chaos e2e e2e-scaling e2e-original cluster cluster-down bench bench-compare profile bench-planner load load-ab load-image picture lint clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'

install: .venv/installed ## install the packages of the lock files into .venv
	@$(BIN)/python -m ops.requirements.packages check

.venv/uv: requirements/uv.txt
	@$(PYTHON) -m ops.requirements.venv .venv
	@echo "Installing uv, then the locked requirements, into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/uv.txt
	@touch $@

.venv/installed: .venv/uv $(LOCKED) pyproject.toml planner/pyproject.toml
	@$(BIN)/uv pip sync --quiet --require-hashes $(LOCKED)
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable . --editable ./planner
	@touch $@

# PACKAGE and EXTRA are passed in the environment, so that they need no quoting.
add: install ## add a package for the tasks; other pins are kept: make add PACKAGE="pandas[excel]>=2" [EXTRA=worker]
	@$(BIN)/python -m ops.requirements.packages add
	@$(MAKE) --no-print-directory install

remove: install ## remove a package: make remove PACKAGE=pandas [EXTRA=worker]
	@$(BIN)/python -m ops.requirements.packages remove
	@$(MAKE) --no-print-directory install

lock: .venv/uv ## resolve the lock files after an edit of pyproject.toml; pins that still fit are kept
	@$(BIN)/python -m ops.requirements.lock

upgrade: .venv/uv ## upgrade every pin to the newest version that fits
	@$(BIN)/python -m ops.requirements.lock --upgrade

up: install ## start the system on this machine, run each task once, and run until Ctrl-C
	@$(BIN)/python -m ops.up

demo: install ## run each task once on the running system
	@$(BIN)/python -m ops.demo

# TASK is passed in the environment, because a shell would remove the quotes of JSON, and make would expand `$$`.
post: export SLUICE_POST = $(value TASK)
post: install ## post a task and follow it: make post TASK='NAME --FIELD VALUE', or TASK='{"task": "NAME", ...}', or its example
	@$(BIN)/python -m ops.run -- $(BIN)/python -m apps.client post --wait --line "$$SLUICE_POST"

rabbitmq-ui: install ## print the URL and credentials of RabbitMQ's management page; CLUSTER=1 forwards the cluster's
	@$(BIN)/python -m ops.rabbitmq_ui $(if $(CLUSTER),--cluster)

dead-letters: install ## list all parked messages of the running system
	@$(BIN)/python -m ops.run -- $(BIN)/python -m apps.worker.dead_letters list

requeue: install ## publish a parked task again: make requeue ID=...
	@test -n "$(ID)" || { echo "ID is missing: run make requeue ID=... with an id from make dead-letters."; exit 1; }
	@$(BIN)/python -m ops.run -- $(BIN)/python -m apps.worker.dead_letters requeue "$(ID)"

discard: install ## delete a parked message permanently: make discard ID=...
	@test -n "$(ID)" || { echo "ID is missing: run make discard ID=... with an id from make dead-letters."; exit 1; }
	@$(BIN)/python -m ops.run -- $(BIN)/python -m apps.worker.dead_letters discard "$(ID)"

contract-baseline: install ## accept changes of the contract that `make lint` reports: ops/contract/baseline.json
	@$(BIN)/python -m ops.contract accept

# A single run of pytest: some tests wait for servers while others use the CPUs, and modules are imported once.
test: install ## lint, unit, integration and manifest tests, without the thorough ones (7 min on 2 cores)
	@$(MAKE) --no-print-directory --jobs 2 lint tools-of-tests
	@$(PYTEST) $(TESTS) -m "not thorough"

test-unit: install ## unit tests, and the tests of the tasks
	@$(PYTEST) tests/unit apps/tasks -m "not thorough"

# A copy of planner/ is tested in its own environment, without the rest of the repository.
test-planner: $(PLANNER) ## tests of `sluice`; its HPA is compared with Kubernetes' controller (first build: 3 min)
	@copy="$$(mktemp -d)" && trap 'rm -r "$$copy"' EXIT && cp -r planner "$$copy" && \
		$(BIN)/uv pip install --quiet --no-cache --no-deps --no-build-isolation --reinstall --python $(PLANNER)/bin/python \
		"$$copy/planner" && cd "$$copy/planner" && "$(abspath $(PLANNER))/bin/python" -m pytest --numprocesses 4

$(PLANNER): install requirements/planner.txt
	@$(BIN)/uv venv --quiet --allow-existing --no-project --python $(BIN)/python $(PLANNER)
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(PLANNER)/bin/python requirements/planner.txt
	@touch $@

test-integration: install ## integration tests on real RabbitMQ and Redis processes, without the thorough ones
	@$(PYTEST) tests/integration -m "not thorough"

test-thorough: tools-of-tests ## the tests that `make test` omits; then tests on RabbitMQ 4.3 and NGINX 1.30 or newer
	@$(PYTEST) $(TESTS) -m "thorough and not alone"
	@$(PYTEST) --numprocesses 0 tests/integration -m alone
	@root="$$($(BIN)/python -m ops.servers.newer)" && SLUICE_TEST_RABBITMQ_ROOT="$$root" $(PYTEST) -m "not thorough" $(BROKER_TESTS)

test-brokers: install ## all integration tests, on the machine's RabbitMQ, then on RabbitMQ 4.3 and NGINX 1.30 or newer
	@$(PYTEST) tests/integration
	@root="$$($(BIN)/python -m ops.servers.newer)" && SLUICE_TEST_RABBITMQ_ROOT="$$root" $(PYTEST) tests/integration

chaos: install ## inject every fault, and check that no accepted task is lost (over 30 min): make chaos SEED=1 (Linux, root)
	@$(BIN)/python -m tests.chaos full --seed $(or $(SEED),1)

chaos-quick: install ## the same with 26 faults (3 min)
	@$(BIN)/python -m tests.chaos quick

abuse: install ## attacks by clients, messages and silent servers; measures the effect on other clients (3 min)
	@$(BIN)/python -m tests.chaos abuse

abuse-quick: install ## the same in 90 s, as in CI
	@$(BIN)/python -m tests.chaos abuse-quick

test-chaos: install ## test that the checker finds the faults of a system with a protection switched off
	@$(PYTEST) --numprocesses 3 tests/chaos

test-replace: $(LOAD) ## test in a clone that a team can replace the tasks as the README says (5 min)
	@$(BIN)/python -m pytest tests/replacement

test-load: $(LOAD) ## tests of the load test: its gates close on servers with faults, its report is readable in a browser
	@$(PYTEST) --numprocesses 4 tests/load

e2e: install ## tests on a new local cluster or E2E_CONTEXT=...; a selection: make e2e E2E="admission local"
	@$(if $(E2E_CONTEXT),,$(BIN)/python -m minicluster build $(if $(E2E),$(filter flux,$(E2E)),flux))
	@$(if $(E2E)$(E2E_CONTEXT),$(E2E_PYTEST) $(or $(E2E:%=tests/e2e/test_%.py),$(E2E_SCALING) $(E2E_ORIGINAL)),$(E2E_RUNS))

e2e-scaling:
	@$(call e2e-run,$(E2E_SCALING),$(CLUSTER_STATE))

e2e-original:
	@$(call e2e-run,$(E2E_ORIGINAL),$(CLUSTER_STATE)-original)

cluster: install ## start a cluster on this machine (Linux, root), and open a shell with its KUBECONFIG
	@$(BIN)/python -m minicluster up

cluster-down: install ## stop and remove this cluster
	@$(BIN)/python -m minicluster down

bench-planner: install ## tasks per second of the planner and of SimPy; build/bench-planner.json
	@$(BIN)/python -m bench.planner

bench: $(BENCH) ## costs of accepting and running tasks, compared with other libraries; build/bench.json (15 min, idle machine)
	@$(BENCH)/bin/python -m bench $(PARTS)

bench-compare: $(BENCH) ## the same, compared with another commit: make bench-compare REF=main [PARTS=worker] (8 min)
	@$(BENCH)/bin/python -m bench.compare_commits $(or $(REF),HEAD) $(PARTS)

profile: $(BENCH) ## CPU time per accepted task by part of the code; build/profile.md
	@$(BENCH)/bin/python -m bench.profile

$(BENCH): install requirements/bench.txt
	@$(BIN)/uv venv --quiet --allow-existing --no-project --python $(BIN)/python $(BENCH)
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(BENCH)/bin/python requirements/bench.txt
	@touch $@

load: $(LOAD) ## load the system and check gates: make load SHAPE=smoke [HOST=http://... [CLUSTER=1]]; build/load/<shape>
	@$(LOAD)/bin/python -m loadtest $(or $(SHAPE),smoke) $(if $(HOST),--host $(HOST)) $(if $(CLUSTER),--cluster) \
		$(if $(APIS),--apis $(APIS)) $(if $(FOLDER),--folder $(FOLDER))

load-image: install ## build the image of loadtest/job, for a load from inside of a cluster
	@$(BIN)/python -m loadtest.job.image

load-ab: $(LOAD) ## load two commits in turns: make load-ab A=main B=HEAD [SHAPE=smoke] (16 min); build/load-ab
	@test -n "$(A)" -a -n "$(B)" || { echo "A or B is missing: run make load-ab A=main B=HEAD."; exit 1; }
	@$(LOAD)/bin/python -m loadtest.ab $(A) $(B) $(if $(SHAPE),--shape $(SHAPE))

$(LOAD): install requirements/load.txt
	@$(BIN)/uv venv --quiet --allow-existing --no-project --python $(BIN)/python $(LOAD)
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(LOAD)/bin/python requirements/load.txt
	@touch $@

picture: install ## redraw the README's picture: docs/planner.png
	@$(BIN)/sluice compare kustomize/base kustomize/overlays/load --arrivals burst:2200@1m --service 12.5 --duration 30m \
		--png docs/planner.png

lint: install ## ruff, mypy, and a check for breaking changes of the contract since the last release
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@cd planner && "$(abspath $(BIN))/mypy"
	@$(BIN)/python -m ops.contract

clean: ## remove installed and generated files, including local data and credentials
	rm -rf .venv .local build .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info planner/src/*.egg-info \
		planner/.hypothesis planner/.mypy_cache planner/.pytest_cache

include ops/targets.mk
