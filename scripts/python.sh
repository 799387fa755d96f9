#!/bin/sh
# Prints a Python >= 3.11 that can make a venv, the distribution's own first.
for p in "${PYTHON:-}" /usr/bin/python3 python3; do
  [ -n "$p" ] || continue
  "$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$p"; exit 0; }
done
echo "corral needs Python 3.11 or newer with the venv module (apt-get install python3-venv)" >&2
exit 1
