"""Every decision, pure: state and time in, a plan out. Performed by ``orchestrator.control``.

``view.py`` and ``replicas.py`` are what is known of nodes and of one service's tasks.
``reconcile.py`` says which tasks should exist, ``rollout.py`` how an update moves on,
the first asking ``restart.py`` about what ended; ``trial.py`` says what came to stay;
``place.py`` says where tasks go, by the rules of ``filters.py`` (with ``constraints.py``) and
the preferences of ``scores.py``.

Nothing here waits, reads a clock, draws a random number or touches a file.
"""
