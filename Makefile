# The two commands: `make demo` and `make test`. Both install what they need.
.PHONY: setup images check test test-slow demo bench clean
PY = .venv/bin/python

setup:
	@scripts/setup.sh

# Base images of the tests and examples, made of Debian packages here because lab hosts reach
# no mirror; they see this cache. 30 s once.
images: setup
	@CORRAL_CACHE_DIR=/var/cache/corral $(PY) scripts/base_images.py --archive-only >/dev/null

check: setup
	@$(PY) scripts/test.py check

test: images
	@$(PY) scripts/test.py

test-slow: images
	@$(PY) scripts/test.py --slow

demo: images
	@$(PY) scripts/demo.py

bench: images
	@$(PY) -m tests.bench

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
