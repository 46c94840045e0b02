# Each target sets up what it needs by itself, the first time; nothing is written outside .cache/ and build/, but for the
# Debian packages that the devnet's hosts need. `make` alone says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-print-directory

.PHONY: help
help:
	@echo 'make demo       two upgrades on a network of this machine: a good one, and one that the canary stops (root; Debian or Ubuntu)'
	echo 'make demo-down  removes all of it'
	echo 'make test       everything: lint, unit and integration tests, sanity, and the Molecule scenarios; STEPS="unit sanity" for some (root)'
	echo 'make lint       what reads the sources'
	echo 'make unit       unit tests; ARGS="tests/unit/_core -k journal" for some'
	echo 'make faults     every fault that a rollout must survive, on real hosts; QUICK=1 for some, CASE=name for one, CASE=? names them (root)'
	echo 'make bench      snapshots and drains against what people use instead; SHARE=0.1 for a tenth of the data'
	echo 'make study      10,000 simulated canaries: how often is a good one stopped, or a bad one let through? (ten minutes); ROLLOUTS=1000'
	echo 'make format     lets ruff format the sources'
	echo 'make live       an upgrade of real XAI nodes: XAI_SRC=DIR XAI_PYTHON=PATH [XAI_SRC_NEW=DIR] (root)'
	echo 'make lock       resolves requirements/tools.in anew'
	echo 'make clean      removes build/ and .cache/, and the images of devnets that are down'

.PHONY: demo
demo:
	@tools/setup.sh python hosts collection
	. tools/env.sh
	exec python tools/demo.py

.PHONY: demo-down
demo-down:
	@tools/setup.sh python hosts collection
	. tools/env.sh
	exec ansible-playbook -i inventories/devnet chainops.validator.devnet -e devnet_state=absent -e devnet_remove_images=true

.PHONY: test
test:
	@tools/setup.sh python hosts services
	. tools/env.sh
	exec python tools/steps.py test $(STEPS)

.PHONY: lint
lint:
	@tools/setup.sh python
	. tools/env.sh
	exec python tools/steps.py lint $(STEPS)

.PHONY: unit
unit:
	@tools/setup.sh python
	. tools/env.sh
	export PYTHONPATH=$$PWD/.cache/collections-dev
	cd .cache/collections-dev/ansible_collections/chainops/validator
	exec pytest $(or $(ARGS),-q -n auto --dist loadgroup tests/unit)

.PHONY: faults
faults:
	@tools/setup.sh python hosts collection
	. tools/env.sh
	export PYTHONPATH=$$PWD/.cache/collections-dev
	exec python tests/faults/run.py $(if $(QUICK),--quick) $(if $(KEEP),--keep) $(foreach case,$(CASE),'$(case)')

.PHONY: bench
bench:
	@tools/setup.sh python bench
	. tools/env.sh
	export PYTHONPATH=$$PWD/.cache/collections-dev
	exec python tests/bench/run.py --share $(or $(SHARE),1)

.PHONY: study
study:
	@tools/setup.sh python
	. tools/env.sh
	export PYTHONPATH=$$PWD/.cache/collections-dev
	exec python tests/bench/canary_study.py --rollouts $(or $(ROLLOUTS),10000)

.PHONY: format
format:
	@tools/setup.sh python
	. tools/env.sh
	ruff check --fix-only --quiet .
	ruff format .

.PHONY: live
live:
	@if [ -z "$(XAI_SRC)" ] || [ -z "$(XAI_PYTHON)" ]; then
	  echo 'make live XAI_SRC=DIR XAI_PYTHON=PATH [XAI_SRC_NEW=DIR]: a checkout of the XAI node, and a Python that has its dependencies' >&2
	  exit 2
	fi
	tools/setup.sh python hosts collection
	. tools/env.sh
	export XAI_SRC="$(abspath $(XAI_SRC))" XAI_PYTHON="$(abspath $(XAI_PYTHON))" XAI_SRC_NEW="$(abspath $(or $(XAI_SRC_NEW),$(XAI_SRC)))"
	exec python tests/live/run.py

.PHONY: lock
lock:
	@tools/setup.sh python
	cd requirements
	exec ../.cache/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --custom-compile-command 'make lock' tools.in -o lock.txt

.PHONY: clean
clean:
	@if command -v podman >/dev/null; then
	  podman images --filter label=chainops.devnet.image --format '{{.Repository}}:{{.Tag}}' | sort | while read -r image; do
	    podman rmi "$$image" >/dev/null 2>&1 || echo "clean: $$image is in use, and stays"
	  done
	fi
	rm -rf build .cache
