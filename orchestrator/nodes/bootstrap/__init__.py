"""A machine becomes a node over SSH, and stops being one.

``join.py`` is the order of the steps and what the API calls; ``hostkey.py`` and ``remote.py`` are
the way to the machine with the operator's own login; ``probe.py`` asks the machine what it is and
``check.py`` (pure) says in words what is missing; ``bundle.py`` packs the agent with everything it
imports; ``install.py`` (pure) is what is done there and undone. ``clusterkey.py`` holds the key
that afterwards opens the agent's socket and nothing else.
"""
