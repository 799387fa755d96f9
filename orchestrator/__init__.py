"""The controller of a cluster, and the user's side of it.

Two halves meet at a socket. ``cli/`` with ``client/`` and ``embedded/`` is what a person starts:
it knows the API and nothing behind it. The controller is the rest, joined by ``controller.py``:
``api/`` takes requests, ``control/`` decides what should exist, ``dispatch/`` tells the nodes and
hears from them, over ``transport/``; ``nodes/`` makes machines members; ``keys/`` says who we are
and seals what is secret; ``store/`` keeps all of it. ``lab/`` stands apart: hosts to try it on.

The rooms know each other by ``contracts.py``; which may import which is checked by import-linter.
"""
