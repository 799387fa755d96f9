# The two commands: `make demo` and `make test`. Both install what they need.
.PHONY: setup check test test-slow demo bench clean
PY = .venv/bin/python

setup:
	@scripts/setup.sh

check: setup
	@.venv/bin/ruff format --check -q .
	@.venv/bin/ruff check -q .
	@.venv/bin/mypy
	@.venv/bin/lint-imports >/tmp/corral-lint-imports.log 2>&1 || { cat /tmp/corral-lint-imports.log; exit 1; }

test: setup
	@$(PY) scripts/test.py

test-slow: setup
	@$(PY) scripts/test.py --slow

demo: setup
	@$(PY) scripts/demo.py

bench: setup
	@$(PY) -m tests.bench

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
