# SPDX-License-Identifier: GPL-2.0-or-later
# `make demo` and `make test` do all set-up on a fresh Debian or Ubuntu machine (as root).
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# each has an engine and a network of its own, and mostly waits for them: four keep two cores busy
WORKERS := -n 4 --dist worksteal

# what is run on another dockerd than the installed one, and the few of it that show at once whether dockerd 29 is served
ON_ENGINE := tests/test_*_on_engine.py tests/*/test_*_on_engine.py tests/adoption tests/dockerd tests/faults tests/firewall \
	tests/virtual/test_engine_contract.py
ON_ENGINE_SAMPLE := tests/test_agent_on_engine.py tests/test_options_on_engine.py tests/api/test_streams_on_engine.py \
	tests/virtual/test_engine_contract.py

.PHONY: demo unit test test-long test-on-engine sample-on-29 lowest-if-possible test-versions bench style eslint xterm pot openapi manual browser browser-if-possible engines-if-possible fuzzer-if-possible venv libuci libuci-if-possible python clean

demo: deps-demo venv
	$(BIN)/python examples/demo.py $(if $(ONESHOT),--oneshot)

# what is decided without an engine: no root, half a minute
unit: venv
	$(BIN)/python -m pytest -n auto tests/model tests/plan tests/schema tests/wire tests/uci tests/convert tests/apply \
		--ignore tests/uci/test_real_uci.py

# the sample mostly waits for its engines, and leaves the processor to the checkers
test: deps-test browser-if-possible venv libuci-if-possible
	@$(MAKE) --no-print-directory -j2 --output-sync=target style $(if $(PYTEST_ARGS),,sample-on-29 lowest-if-possible)
	$(BIN)/python -m pytest $(WORKERS) $(PYTEST_ARGS)

test-long: deps-test browser-if-possible engines-if-possible venv fuzzer-if-possible libuci-if-possible style
	$(BIN)/python -m pytest $(WORKERS) -m '' $(PYTEST_ARGS)
	$(if $(PYTEST_ARGS),,@for engine in 26 28 29; do $(MAKE) --no-print-directory test-on-engine ENGINE=$$engine || exit; done)

# `make test-on-engine ENGINE=28`: the tests of an engine on dockerd 26, 28 or 29; nothing where that is not at hand
test-on-engine: venv
	@! $(BIN)/python -m tests.support.engines --at-hand $(ENGINE) || \
		$(BIN)/python -m pytest $(WORKERS) -m '' --engine $(ENGINE) $(or $(PYTEST_ARGS),$(ON_ENGINE))

sample-on-29: venv
	@$(MAKE) --no-print-directory test-on-engine ENGINE=29 PYTEST_ARGS="-m 'not long' $(ON_ENGINE_SAMPLE)"

# what one test starts the agent with: the lowest versions of the libraries that it answers clients with
lowest-if-possible: venv
	@[ .versions/lowest-libraries -nt tests/setup/versions/lowest.txt ] || \
		$(BIN)/python -m tests.setup.dependencies --lowest-libraries || echo "the lowest versions will not be tested"

# man pages in docs/man, completions in package/completion and docs/reference, from the commands and the schemas
manual: venv
	$(BIN)/python -m tests.support.manual

# the tests that need no engine, on the lowest versions of the libraries, OpenWrt's and the newest
test-versions: deps-test venv
	$(BIN)/python -m tests.setup.dependencies $(SETS) $(if $(PYTEST_ARGS),-- $(PYTEST_ARGS))

# all benchmarks, or one: `make bench BENCH=reconcile-noop`
bench: deps-bench venv
	$(BIN)/python -m benchmarks $(BENCH)

style: venv
	$(BIN)/ruff check agent benchmarks tests examples luci package
	$(BIN)/ruff format --check agent benchmarks tests examples luci package
	$(BIN)/mypy
	$(BIN)/vulture
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(BIN)/shellcheck -x init.d/* hotplug.d/notify.sh hotplug.d/*/* uci-defaults/* package/*/files/p* package/debian/p* package/*/test.sh tests/setup/packages.sh
	@$(MAKE) --no-print-directory eslint

# LuCI's pages, where node is there
eslint:
	@if command -v npm >/dev/null; then \
		$(MAKE) -s node_modules/.done || { echo "npm ci failed: the pages are not linted"; exit 0; }; \
		npm run --silent lint; \
	else echo "npm is not installed: the pages are not linted"; fi

# the terminal of LuCI's pages, in the version that package.json names
XTERM := luci/htdocs/luci-static/resources/ucidockd/xterm
xterm: node_modules/.done
	node luci/xterm.mjs node_modules/@xterm >$(XTERM)/xterm.js
	cp node_modules/@xterm/xterm/LICENSE $(XTERM)/

# the template of the pages' translations; the catalogues are brought up to date with it
pot: venv
	$(BIN)/python luci/i18n/catalogues.py pot

# docs/openapi.json from the route table
openapi: venv
	$(BIN)/python -m tests.support.openapi

# tests/setup/packages.sh lists what a target needs of Debian, and installs what is missing
deps-%:
	@PYTHON="$(PYTHON)" sh tests/setup/packages.sh $*

# the pictures of the manual, made by the browser tests
.PHONY: screenshots
screenshots: deps-test browser venv
	SCREENSHOTS=$(CURDIR)/docs/images $(BIN)/python -m pytest -n 1 -m long tests/luci/browser/test_pictures.py

# what tests with a real browser behind a real reverse proxy need; without it they are skipped
browser: deps-browser .browser/.done

# put in place whole: an interrupted npm leaves half of it. 1.61 is the last for Debian 12's node 18
.browser/.done:
	@rm -rf .browser .browser.new
	@npm install --silent --no-audit --no-fund --prefix .browser.new playwright-core@~1.61
	@mv .browser.new .browser && touch $@

node_modules/.done: package-lock.json
	@npm ci --silent --no-audit --no-fund && touch $@

browser-if-possible:
	@$(MAKE) --no-print-directory browser || echo "tests with a browser will be skipped"

# engines 26, 28 and 29, before the tests' workers leave for networks of their own; without them their tests are skipped
engines-if-possible: deps-test venv
	@$(MAKE) --no-print-directory deps-engines || echo "dockerd 29 is not built"
	@$(BIN)/python -m tests.support.engines

# fuzzing is guided by coverage with it, and blind without
fuzzer-if-possible: venv
	@$(BIN)/pip install -q 'atheris>=2.3' 2>/dev/null || echo "no atheris for this Python: fuzzing will be blind"

venv: .venv/.done

# a target of its own: make looks for PYTHON before the first line of a recipe runs
python:
	@$(or $(PYTHON),false) -c 'import ensurepip' 2>/dev/null || $(MAKE) -s deps-demo

.venv/.done: pyproject.toml | python
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[dev,openwisp]'
	@touch $@

# the real libuci and `uci` in .libuci/, and pyuci on it in .venv
libuci: venv
	@$(BIN)/python tests/libuci/build.py

# without it, tests that need it are skipped and say why
libuci-if-possible: venv
	@$(BIN)/python tests/libuci/build.py || echo "tests with the real libuci will be skipped"

clean:
	rm -rf .venv .versions .libuci .browser .browser.new node_modules build *.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# --- packages: dist/ with .ipk, .apk, .deb, the indexes of a feed and checksums; `make dist`: the source, its hash, and the
# packages for a feed that takes it from URL
# keys: USIGN_KEY=secret of `usign -G`, APK_KEY=RSA key in PEM; URL=where the feed will be; MAINTAINER='NAME <ADDRESS>', else
# the author in pyproject.toml
.PHONY: packages dist
packages: venv
	$(BIN)/python package/build/build.py $(if $(URL),--url '$(URL)') $(if $(USIGN_KEY),--usign-key '$(USIGN_KEY)') \
		$(if $(APK_KEY),--apk-key '$(APK_KEY)') $(if $(MAINTAINER),--maintainer '$(MAINTAINER)')

dist: venv
	$(BIN)/python package/build/build.py --source $(if $(URL),--url '$(URL)') $(if $(MAINTAINER),--maintainer '$(MAINTAINER)')
