"""Where desired state is kept: versioned keys, compare-and-swap, watches from a revision.

``base.py`` is the contract and ``limits.py`` its bounds; one conformance suite holds every engine
to them. ``sqlite.py`` is the default: calls come in on the loop, ``writer.py`` is the one thread
that writes, ``statefile.py`` the file itself and all that can be wrong with it, ``log.py`` what
watchers still may ask for. ``memory.py`` serves tests. ``keys.py`` says what lies where.

Nothing here knows what a stack is.
"""
