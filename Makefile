# Every command a person needs, one line each; what takes more than a line is in the scripts and modules named here.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON := .venv/bin/python
WITH_ENGINE := images/with-engine.sh
# Images beside the controller's, such as "llama-cpp transformers"; all that there are for the box without it.
ENGINES ?=
# The box that images are for: cpu, cuda, orin or thor, and a Jetson's JetPack release. Remembered in build/device.
DEVICE ?=
JETPACK ?=
export DEVICE JETPACK
# Anything here: make no image, say what would be made of what; JSON=1 for programs.
DRY_RUN ?=
JSON ?=
# What `make flash` writes; see appliance/README.md for its other settings.
BOARD ?=
# Another Compose file on top, such as compose/dev.yaml.
COMPOSE_EXTRA ?=
PYTEST_ARGS ?=
# Boxes as ssh knows them, with commas between, or a file with one a line; BREAK_LOCK=1 takes away a lock that nobody is behind.
HOST ?=
INVENTORY ?=
BREAK_LOCK ?=
BOXES = --host "$(HOST)" $(addprefix --inventory ,$(INVENTORY)) $(if $(DRY_RUN),--dry-run) $(if $(BREAK_LOCK),--break-lock)
# Where a virtual machine's gateway answers, and whether it goes on with its disk.
PORT ?=
KEEP ?=
# The kind of box an operating system is made for: a file in appliance/targets.
TARGET ?= qemu-amd64
# Parts of `make bench`, with commas between; all of them without it.
ONLY ?=
BENCH = $(WITH_ENGINE) env $$(<build/images.env) $(PYTHON) -m bench.$@

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: engine ## install what is missing, start the stack, ask a model a question
	@$(WITH_ENGINE) $(PYTHON) -m controller.ops.local up $(addprefix --file ,$(COMPOSE_EXTRA))

flash: venv ## write the appliance onto a board (BOARD=jetson-orin-nano) or a disk (BOARD=pc DISK=/dev/sdX); DRY_RUN=1 prints every command
	@$(PYTHON) -m controller.ops.flash flash "$(BOARD)"

flash-kit: venv ## make an archive that flashes boards of one kind elsewhere, without a network (BOARD=)
	@$(PYTHON) -m controller.ops.flash pack "$(BOARD)"

down: engine ## stop everything; models and state stay
	@$(WITH_ENGINE) $(PYTHON) -m controller.ops.local down $(addprefix --file ,$(COMPOSE_EXTRA))

ifeq ($(DRY_RUN),)
images: engine ## make the images that are missing (DEVICE=cpu, cuda, orin or thor; DRY_RUN=1 to see what from)
	@$(WITH_ENGINE) $(PYTHON) -m controller.ops.images build $(if $(ENGINES),controller $(ENGINES))
else
images: venv
	@$(PYTHON) -m controller.ops.images build --dry-run $(if $(JSON),--json) $(if $(ENGINES),controller $(ENGINES))
endif

deploy: engine ## bring this checkout to boxes over ssh (HOST=box,box2 or INVENTORY=file; DRY_RUN=1 shows every command)
	@$(WITH_ENGINE) $(PYTHON) -m controller.ops.deploy deploy $(BOXES) --engines "$(ENGINES)"

provision: engine ## make boxes of stock Debian, Ubuntu or JetPack systems (HOST=box), and bring this checkout to them
	@$(WITH_ENGINE) $(PYTHON) -m controller.ops.deploy provision $(BOXES) --engines "$(ENGINES)"

rollback: venv ## take boxes back to the release they ran before
	@$(PYTHON) -m controller.ops.deploy rollback $(BOXES)

test: images ## run every test but the appliance's, on the real container engine
	@images/setup.sh tests
	@$(WITH_ENGINE) env $$(<build/images.env) $(PYTHON) -m pytest -m "not appliance" $(PYTEST_ARGS)

test-fast: venv ## run the tests that need no engine, in a few minutes
	@$(PYTHON) -m pytest -m "not engine and not system and not vendor and not appliance" -n auto $(PYTEST_ARGS)

mutants: venv ## plant each of four hundred faults and more in the core, and see that the tests find it
	@$(PYTHON) -m tests.mutants

check: venv ## format, lint, types, import order, shell scripts, Dockerfiles
	@images/setup.sh lint
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports
	@git ls-files -z --cached --others --exclude-standard | xargs -0 awk 'FNR == 1 {if (/^#!.*sh$$/) print FILENAME; nextfile}' | xargs shellcheck
	@git ls-files -z --cached --others --exclude-standard '*Dockerfile' | xargs -0 .venv/bin/hadolint

format: venv ## format the code and mend what the linter can mend
	@$(PYTHON) -m ruff check --fix-only --quiet .
	@$(PYTHON) -m ruff format .

lock: venv ## write requirements/*.lock anew
	@requirements/lock.sh

capacity: images ## table: 0.5B models at 16, 8 and 4 bits answer at once in 7.4 GiB; one more evicts the right one
	@$(BENCH)

swap: images ## table: a model goes out and comes in again, in seconds and bytes
	@$(BENCH)

peer: images ## table: a small model's warm swap beside that of llama.cpp's own router
	@$(BENCH)

trace: images ## table: twelve clients in turn, and a Zipf trace, through Windlass and through llama.cpp's own router
	@$(BENCH)

gateway: images ## table: the gateway beside a bare worker, nginx and LiteLLM's proxy; with 10, 100 and 10,000 models
	@images/setup.sh bench
	@$(BENCH)

decode: images ## table: tokens a second through the gateway and beside it
	@$(BENCH)

gpu: images ## table: models on this box's GPU take its memory, give it back, and decode as fast as the engine alone
	@$(BENCH)

simulate: venv ## table: the scheduler under load on a virtual clock, beside simpler policies
	@$(PYTHON) -m bench.simulator

soak: images ## table: 200 clients, 5 models, 3 minutes, with hang-ups and kills
	@$(BENCH)

bench: images ## everything that is measured, in one run: a table, build/bench/bench.json, pictures
	@images/setup.sh bench
	@$(BENCH) $(addprefix --only ,$(ONLY))

image: engine ## the operating system of a box as a disk image: TARGET=qemu-amd64, pc-amd64, ...; made by root
	@images/setup.sh appliance
	@$(WITH_ENGINE) $(PYTHON) -m controller.ops.appliance.image build $(TARGET)

image-compare: engine ## make the system of TARGET twice from nothing and compare: files, packages, versions
	@images/setup.sh appliance
	@$(WITH_ENGINE) $(PYTHON) -m controller.ops.appliance.image compare $(TARGET)

boot: venv ## start the newest image of TARGET in a virtual machine; PORT=8000, KEEP=1 goes on with the last one's disk
	@images/setup.sh appliance
	@$(PYTHON) -m controller.ops.appliance.boot $(TARGET) $(addprefix --port ,$(PORT)) $(if $(KEEP),--keep)

update: venv ## a signed update of the last image made (TARGET=, MODELS=folder), or bring it to a box that is up (HOST=)
	@images/setup.sh appliance
	@$(PYTHON) -m controller.ops.appliance.update $(if $(HOST),send $(HOST) --target $(TARGET),bundle $(TARGET) $(if $(MODELS),--models $(MODELS)))

update-keys: venv ## an authority and a key that sign updates for development, in build/update-keys
	@$(PYTHON) -m controller.ops.appliance.update keys

test-appliance: TARGET = qemu-amd64
test-appliance: images image ## run the tests of the operating system's image, in virtual machines
	@images/setup.sh machines
	@$(WITH_ENGINE) env $$(<build/images.env) $(PYTHON) -m tests.appliance run $(ONLY) $(if $(PYTEST_ARGS),-- $(PYTEST_ARGS))

venv: .venv/.locked
.venv/.locked: requirements/dev.lock pyproject.toml
	@images/setup.sh python
	@touch $@

engine: venv
	@images/setup.sh engine

.PHONY: help run flash flash-kit down images deploy rollback test test-fast mutants check format lock capacity swap peer trace gateway decode gpu simulate soak bench image image-compare boot test-appliance update update-keys venv engine provision
