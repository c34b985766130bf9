# Every target calls one tool; `make help` lists them. PYTHON chooses the interpreter of the toolchain, ENV an environment, ROLE a role.
SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Ansible wants a UTF-8 locale, and logs show lines as they come
export LC_ALL := C.UTF-8
export PYTHONUNBUFFERED := 1
# Where the environment forbids bytecode, Ansible is compiled anew at each of hundreds of starts, which takes a third longer
unexport PYTHONDONTWRITEBYTECODE
run = $(VENV)/bin/python -m

help:  ## List the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

up: toolchain  ## Start the local host and converge it: https://localhost:8443
	@$(run) tools.up

# Whatever is left of an earlier run means that there may be more, also where the toolchain itself is gone
down:  ## Take the local host down and leave nothing behind (GROUNDCREW_KEEP=1 keeps images)
	@if [ -e .local ] || [ -e .cache ] || [ -e $(VENV) ]; then $(MAKE) --no-print-directory toolchain && $(run) tools.down; \
	else echo "nothing is up: there is no .local, .cache or $(VENV)"; fi

ssh:  ## Log in to the local host
	@[ -e .local/ssh ] || { echo "there is no local host: make up" >&2; exit 1; }
	@$(MAKE) --no-print-directory toolchain && $(run) tools.access

# The short ones first, so that it fails early
test:  ## The suite: lint, unit and app tests, make up, Molecule on Debian 12 and 13
	@$(MAKE) --no-print-directory -j4 --output-sync=target lint test-unit test-app test-up
	@$(MAKE) --no-print-directory molecule

check:  ## The everyday part of it: lint, unit and app tests, side by side
	@$(MAKE) --no-print-directory -j3 --output-sync=target lint test-unit test-app

lint: toolchain app-toolchain  ## All linters, side by side
	@$(run) tools.lint

# What runs beside the application's Celery is tested with it
test-unit: toolchain app-toolchain  ## Tests of templates, plugins and tools
	@$(run) pytest -q -n auto --dist loadfile --ignore tests/commands --ignore tests/test_celery_release.py tests
	@.venv-app/bin/python -m pytest -q tests/test_celery_release.py

test-app: toolchain app-toolchain  ## Tests of the sample application, with real PostgreSQL and Redis
	@$(run) tools.services run -- .venv-app/bin/python -m pytest app/tests

test-up: toolchain  ## make up on a clean checkout, again, and make down
	@$(run) pytest -q tests/commands

molecule: toolchain audit-toolchain  ## Molecule scenarios side by side, or one: make molecule ROLE=nginx
	@$(run) tools.scenarios $(ROLE)

soak: toolchain audit-toolchain  ## Two hours of releases and killed runs under load, of clusters that are drilled and changed, and of upgrades
	@GROUNDCREW_JOBS=1 GROUNDCREW_SOAK=1 $(run) tools.scenarios releases cluster patroni pool edge upgrade major

bench: toolchain  ## Measure site.yml against a plain shell script: make bench ROUNDS=3
	@$(run) tools.bench $(ROUNDS)

bench-waf: toolchain  ## Measure the web application firewall, on and off: make bench-waf ROUNDS=3
	@$(run) tools.bench_waf $(ROUNDS)

bench-growth: toolchain  ## Measure a run that changes nothing over 1, 4 and 8 hosts: make bench-growth ROUNDS=3
	@$(run) tools.bench_growth $(ROUNDS)

fmt: toolchain  ## Format the Python code
	@ruff format -q . && ruff check -q --fix .

docs: toolchain  ## Write the variables' tables of the roles' READMEs from their specs, and those of docs/servers.md
	@$(run) tools.roles docs
	@$(run) tools.servers

secrets: toolchain  ## Fresh secrets for an environment: make secrets ENV=staging (KEYRING=1 keeps the vault's password in the keyring)
	@$(run) tools.secrets $(ENV) $(if $(KEYRING),--keyring)

rotate: toolchain  ## New secrets for an environment that runs, with no failed request: make rotate ENV=staging
	@$(run) tools.secrets $(ENV) --rotate

lock: toolchain  ## Lock the toolchain's and the application's dependencies anew
	@$(run) tools.lock

toolchain:
	@sh tools/venv.sh $(VENV) requirements.lock

app-toolchain:
	@sh tools/venv.sh .venv-app app/requirements-dev.lock app

# What auditors use, for the scenarios
audit-toolchain:
	@sh tools/venv.sh .venv-audit molecule/resources/audit/requirements.lock

.PHONY: help up down ssh test check lint test-unit test-app test-up molecule soak bench bench-growth bench-waf fmt docs secrets rotate lock toolchain app-toolchain audit-toolchain
