"""The controller's HTTP API: a request becomes a command of the control loops, or a view.

``routes.py`` is the table, ``app.py`` serves it on the socket; ``rows.py`` shapes what people
read (pure), ``streams.py`` and ``logs.py`` are the answers that go on, ``problems.py`` is the one
place where errors become answers. It decides nothing and writes nothing to the store.
"""
