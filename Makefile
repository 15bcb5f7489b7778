# Every verb that a person or CI needs. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
# No verb talks to this machine through a proxy; other hosts are reached through the environment's.
DIRECT := localhost,127.0.0.1,::1
export no_proxy := $(DIRECT),$(or $(no_proxy),$(NO_PROXY))
export NO_PROXY := $(no_proxy)
LOCKED := requirements/dev.txt requirements/uv.txt
BENCH := .local/bench
LOAD := .local/load
PLANNER := .local/planner
# What the version of RabbitMQ or NGINX decides: connections, dead letters, definitions and configuration.
BROKER_TESTS := $(addprefix tests/integration/test_,$(addsuffix .py,broker_away dead_letters definitions life liveness \
	lost_workers malformed nginx platform_configuration publisher queues records start upgrade versions))
# Five processes on two cores: one or two of them wait for servers. worksteal: most modules stay in one process, so that
# what a module's tests share is started once.
PYTEST := $(BIN)/python -m pytest --numprocesses 5 --dist worksteal
TESTS := tests/unit apps/tasks tests/integration tests/manifests minicluster
CLUSTER_STATE ?= .local/cluster
# A test on a cluster may need its start, too: 20 minutes.
E2E_PYTEST := $(BIN)/python -m pytest --verbose --timeout 1200
# The tests on a cluster are two runs of pytest beside each other, each on a cluster of its own; pytest keeps this order.
# The parts between the two tests of `original` leave the workers alone, which need 450 s for its burst meanwhile.
E2E_SCALING := $(addprefix tests/e2e/test_,$(addsuffix .py,local scaling rollout load))
E2E_ORIGINAL := $(addprefix tests/e2e/test_,original.py::test_burst_is_accepted cluster.py admission.py network.py \
	existing.py keda.py flux.py original.py::test_two_workers_finish_the_burst_without_scaling trouble.py fallback.py ingress.py)
E2E_RUNS = $(MAKE) --no-print-directory --jobs 2 e2e-scaling e2e-original
# The lines of a run begin with its name; sed ignores Ctrl-C, so that the end of pytest is seen. pytest ends with its shell.
e2e-run = exec env CLUSTER_STATE="$(2)" PYTHONUNBUFFERED=1 bash -o pipefail -c 'setpriv --pdeathsig=INT $(E2E_PYTEST) $(1) 2>&1 \
	| (trap "" INT; exec sed --unbuffered "s/^/$@: /")'

.DEFAULT_GOAL := help
.PHONY: help install add remove lock upgrade up demo post rabbitmq-ui dead-letters requeue discard contract-baseline test test-unit test-planner test-integration test-thorough test-brokers test-load test-replace chaos chaos-quick abuse abuse-quick test-chaos e2e e2e-scaling e2e-original cluster cluster-down bench bench-compare profile bench-planner load load-ab load-image picture lint clean

help: ## list the verbs
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'

install: .venv/installed ## install what the lock files name into .venv
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

# PACKAGE and EXTRA reach it by the environment, whatever characters they have.
add: install ## let the tasks import a package; no other pin moves: make add PACKAGE="pandas[excel]>=2" [EXTRA=worker]
	@$(BIN)/python -m ops.requirements.packages add
	@$(MAKE) --no-print-directory install

remove: install ## take a package away again: make remove PACKAGE=pandas [EXTRA=worker]
	@$(BIN)/python -m ops.requirements.packages remove
	@$(MAKE) --no-print-directory install

lock: .venv/uv ## resolve what pyproject.toml names by hand; pins that still fit stay
	@$(BIN)/python -m ops.requirements.lock

upgrade: .venv/uv ## move every pin to the newest version that fits
	@$(BIN)/python -m ops.requirements.lock --upgrade

up: install ## start everything on this machine, run one of each task, stay up until Ctrl-C
	@$(BIN)/python -m ops.up

demo: install ## run one of each task on the running system again
	@$(BIN)/python -m ops.demo

# The text reaches the client as it is: through a shell's line, JSON would lose its quotes, and make takes `$$`.
post: export SLUICE_POST = $(value TASK)
post: install ## post a task and follow it: make post TASK='NAME --FIELD VALUE', or TASK='{"task": "NAME", ...}', or its example
	@$(BIN)/python -m ops.run -- $(BIN)/python -m apps.client post --wait --line "$$SLUICE_POST"

rabbitmq-ui: install ## say where RabbitMQ's management page is, and its credentials; CLUSTER=1 forwards the cluster's
	@$(BIN)/python -m ops.rabbitmq_ui $(if $(CLUSTER),--cluster)

dead-letters: install ## list all parked messages of the running system
	@$(BIN)/python -m ops.run -- $(BIN)/python -m apps.worker.dead_letters list

requeue: install ## send a parked task again: make requeue ID=...
	@test -n "$(ID)" || { echo "Say which one: make requeue ID=..., as listed by make dead-letters."; exit 1; }
	@$(BIN)/python -m ops.run -- $(BIN)/python -m apps.worker.dead_letters requeue "$(ID)"

discard: install ## take a parked message away for good: make discard ID=...
	@test -n "$(ID)" || { echo "Say which one: make discard ID=..., as listed by make dead-letters."; exit 1; }
	@$(BIN)/python -m ops.run -- $(BIN)/python -m apps.worker.dead_letters discard "$(ID)"

contract-baseline: install ## accept what `make lint` says of the contract: ops/contract/baseline.json
	@$(BIN)/python -m ops.contract accept

# One run of pytest for all tests: while some wait for servers, others use the CPUs, and the modules are imported once.
test: install ## lint, unit tests, integration tests, tests of the manifests: some of each kind (4 min on 2 cores)
	@$(MAKE) --no-print-directory --jobs 2 lint tools-of-tests
	@$(PYTEST) $(TESTS) -m "not thorough"

test-unit: install ## unit tests, and those of the tasks
	@$(PYTEST) tests/unit apps/tasks -m "not thorough"

# In an environment of its own, as a copy without the rest of the repository.
test-planner: $(PLANNER) ## tests of `sluice`, its HPA against Kubernetes' own controller (built by Go the first time, 3 min)
	@copy="$$(mktemp -d)" && trap 'rm -r "$$copy"' EXIT && cp -r planner "$$copy" && \
		$(BIN)/uv pip install --quiet --no-cache --no-deps --no-build-isolation --reinstall --python $(PLANNER)/bin/python \
		"$$copy/planner" && cd "$$copy/planner" && "$(abspath $(PLANNER))/bin/python" -m pytest --numprocesses 4

$(PLANNER): install requirements/planner.txt
	@$(BIN)/uv venv --quiet --allow-existing --no-project --python $(BIN)/python $(PLANNER)
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(PLANNER)/bin/python requirements/planner.txt
	@touch $@

test-integration: install ## integration tests on real RabbitMQ and Redis processes: some of each kind
	@$(PYTEST) tests/integration -m "not thorough"

test-thorough: tools-of-tests ## the tests that `make test` leaves out; then what RabbitMQ or NGINX decides, on 4.3 and 1.30 or newer
	@$(PYTEST) $(TESTS) -m "thorough and not alone"
	@$(PYTEST) --numprocesses 0 tests/integration -m alone
	@root="$$($(BIN)/python -m ops.servers.newer)" && SLUICE_TEST_RABBITMQ_ROOT="$$root" $(PYTEST) -m "not thorough" $(BROKER_TESTS)

test-brokers: install ## all integration tests, on RabbitMQ 3.10 or what the machine has, then on 4.3 or newer (and nginx 1.30)
	@$(PYTEST) tests/integration
	@root="$$($(BIN)/python -m ops.servers.newer)" && SLUICE_TEST_RABBITMQ_ROOT="$$root" $(PYTEST) tests/integration

chaos: install ## every fault, for more than half an hour, and a checker of what was accepted: make chaos SEED=1 (Linux, root)
	@$(BIN)/python -m tests.chaos full --seed $(or $(SEED),1)

chaos-quick: install ## the same in 3 minutes, with 26 faults
	@$(BIN)/python -m tests.chaos quick

abuse: install ## attacks by a client, by messages and by silent servers, and what other clients notice of each (3 min)
	@$(BIN)/python -m tests.chaos abuse

abuse-quick: install ## the same in a minute and a half; what CI runs
	@$(BIN)/python -m tests.chaos abuse-quick

test-chaos: install ## that the checker finds what follows when a protection is switched off
	@$(PYTEST) --numprocesses 3 tests/chaos

test-replace: $(LOAD) ## that a team can replace the tasks as the README says: in a clone, with every verb (5 min)
	@$(BIN)/python -m pytest tests/replacement

test-load: $(LOAD) ## tests of the load test: its gates close on servers with faults, its report is readable in a browser
	@$(PYTEST) --numprocesses 4 tests/load

e2e: install ## tests on a real cluster, made here or that of E2E_CONTEXT=...; parts of them: make e2e E2E="admission local"
	@$(if $(E2E_CONTEXT),,$(BIN)/python -m minicluster build $(if $(E2E),$(filter flux,$(E2E)),flux))
	@$(if $(E2E)$(E2E_CONTEXT),$(E2E_PYTEST) $(or $(E2E:%=tests/e2e/test_%.py),$(E2E_SCALING) $(E2E_ORIGINAL)),$(E2E_RUNS))

e2e-scaling:
	@$(call e2e-run,$(E2E_SCALING),$(CLUSTER_STATE))

e2e-original:
	@$(call e2e-run,$(E2E_ORIGINAL),$(CLUSTER_STATE)-original)

cluster: install ## start a cluster on this machine (Linux, root) that stays, and a shell that knows it
	@$(BIN)/python -m minicluster up

cluster-down: install ## take that cluster away
	@$(BIN)/python -m minicluster down

bench-planner: install ## tasks per second of the planner and of SimPy; build/bench-planner.json
	@$(BIN)/python -m bench.planner

bench: $(BENCH) ## what accepting and working costs, beside other ways to do the same; build/bench.json (15 min, quiet machine)
	@$(BENCH)/bin/python -m bench $(PARTS)

bench-compare: $(BENCH) ## accepting and running tasks, beside another commit: make bench-compare REF=main [PARTS=worker] (8 min)
	@$(BENCH)/bin/python -m bench.compare_commits $(or $(REF),HEAD) $(PARTS)

profile: $(BENCH) ## where the microseconds of an accepted task are; build/profile.md
	@$(BENCH)/bin/python -m bench.profile

$(BENCH): install requirements/bench.txt
	@$(BIN)/uv venv --quiet --allow-existing --no-project --python $(BIN)/python $(BENCH)
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(BENCH)/bin/python requirements/bench.txt
	@touch $@

load: $(LOAD) ## load the system and judge it: make load SHAPE=smoke [HOST=http://... [CLUSTER=1]]; build/load/<shape>
	@$(LOAD)/bin/python -m loadtest $(or $(SHAPE),smoke) $(if $(HOST),--host $(HOST)) $(if $(CLUSTER),--cluster) \
		$(if $(APIS),--apis $(APIS)) $(if $(FOLDER),--folder $(FOLDER))

load-image: install ## build the image of loadtest/job, which loads from inside of a cluster
	@$(BIN)/python -m loadtest.job.image

load-ab: $(LOAD) ## one shape against two commits in turns: make load-ab A=main B=HEAD [SHAPE=smoke] (16 min); build/load-ab
	@test -n "$(A)" -a -n "$(B)" || { echo "Say which commits: make load-ab A=main B=HEAD."; exit 1; }
	@$(LOAD)/bin/python -m loadtest.ab $(A) $(B) $(if $(SHAPE),--shape $(SHAPE))

$(LOAD): install requirements/load.txt
	@$(BIN)/uv venv --quiet --allow-existing --no-project --python $(BIN)/python $(LOAD)
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(LOAD)/bin/python requirements/load.txt
	@touch $@

picture: install ## draw the README's picture again: docs/planner.png
	@$(BIN)/sluice compare kustomize/base kustomize/overlays/load --arrivals burst:2200@1m --service 12.5 --duration 30m \
		--png docs/planner.png

lint: install ## ruff, mypy, and whether the contract breaks what was released
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@cd planner && "$(abspath $(BIN))/mypy"
	@$(BIN)/python -m ops.contract

clean: ## remove what was installed and generated, the local data and credentials too
	rm -rf .venv .local build .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info planner/src/*.egg-info \
		planner/.hypothesis planner/.mypy_cache planner/.pytest_cache

include ops/targets.mk
