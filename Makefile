# Everything a fresh machine needs: Python 3.11 or later and make; Node with npm for the real command lines.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CLIS := .clis
CLIS_INSTALLED := $(CLIS)/.installed
SDKS := .sdks
SDKS_INSTALLED := $(SDKS)/.installed
COMPAT := .compat
COMPAT_PINS := tests/compat/environments
COMPAT_ENVIRONMENTS := ai-sdk $(filter-out litellm-proxy,$(patsubst $(COMPAT_PINS)/%.txt,%,$(wildcard $(COMPAT_PINS)/*.txt)))
# In CI every required test has to run: a missing npm is an error there, elsewhere a clear skip.
REQUIRED := $(ASM_ENDPOINT_CI)

.PHONY: demo test test-command-lines test-everything-else check bench chaos compat contracts format clis sdks record-transcripts clean

demo: $(INSTALLED)
	$(BIN)/asm-endpoint demo

# In two halves at once: the first waits for command lines to start up for much of its time.
test: $(INSTALLED) clis sdks
	$(MAKE) --no-print-directory -j2 test-command-lines test-everything-else

test-command-lines:
	$(BIN)/python -m pytest -m "not bench and not chaos" tests/clis tests/chaos

test-everything-else:
	$(BIN)/python -m pytest -m "not bench and not chaos" --ignore=tests/clis --ignore=tests/chaos

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(INSTALLED) clis $(COMPAT)/litellm-proxy/.installed
	$(BIN)/python -m pytest tests/bench -m bench

# Random kills; ends with one table. `SEED=… KILLS=… make chaos` for a certain sequence.
chaos: $(INSTALLED)
	$(BIN)/python -m pytest tests/chaos -m chaos

# Independent clients, each in an environment of its own, through the whole stack; ends with one table.
compat: $(INSTALLED) clis $(COMPAT_ENVIRONMENTS:%=$(COMPAT)/%/.installed)
	$(BIN)/python -m tests.compat.run

# The OpenAPI documents and the examples of the contracts, written anew after a change of them.
contracts: $(INSTALLED)
	$(BIN)/python -m tests.unit.contract_examples

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(INSTALLED): pyproject.toml tests/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cannot install: Python 3.11 or later is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint tests/constraints.txt --editable '.[test,check]'
	touch $@

clis:
	@if command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory $(CLIS_INSTALLED); \
	elif [ -n "$(REQUIRED)" ]; then \
		echo "cannot install the pinned command lines: npm is missing, and CI requires them" >&2; exit 1; \
	else \
		echo "npm is missing: the tests with real command lines will be skipped" >&2; \
	fi

$(CLIS_INSTALLED): tests/clis/package.json
	mkdir -p $(CLIS)
	cp tests/clis/package.json $(CLIS)/package.json
	npm install --prefix $(CLIS) --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel=error
	touch $@

# Provider-native SDKs, in an environment of their own: nothing else needs them. Without the command lines, no use.
sdks:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(SDKS_INSTALLED); fi

$(SDKS_INSTALLED): pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv $(SDKS)
	$(SDKS)/bin/python -m pip install --quiet --constraint tests/constraints.txt --no-binary claude-agent-sdk \
		--editable '.[claude-sdk,codex-sdk]'
	touch $@

# Record what the installed command lines print, or of a named version (CLI=claude VERSION=2.1.197), and name what has
# another meaning than what is recorded.
record-transcripts: $(INSTALLED) clis
	$(BIN)/python -m tests.clis.recordings $(if $(CLI),--cli $(CLI)) $(if $(VERSION),--version $(VERSION))

$(COMPAT)/%/.installed: $(COMPAT_PINS)/%.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(COMPAT)/%/.installed: $(COMPAT_PINS)/%/package.json
	rm -rf $(@D)
	mkdir -p $(@D)
	cp $< $(@D)/package.json
	npm install --prefix $(@D) --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel=error
	touch $@

clean:
	rm -rf $(VENV) $(CLIS) $(SDKS) $(COMPAT) .cli-versions .pytest_cache .mypy_cache .ruff_cache
