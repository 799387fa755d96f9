"""Between the control loops and the agents: what is wanted goes out, what is reported comes in.

``dispatcher.py`` keeps a session with every member, for as long as it is one; ``session.py`` is
the life of one connection (full set, increments, reports); ``instructions.py`` computes what to
send (pure); ``agent.py`` is one agent's HTTP API as calls, ``ndjson.py`` its streams in lines.

It decides nothing about tasks, and stops for good when a newer controller has spoken.
"""
