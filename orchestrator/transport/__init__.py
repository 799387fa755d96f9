"""The way to an agent's socket, wherever it is. Nothing above knows which way it was.

``base.py`` is the protocol; ``local.py`` opens the socket of this machine, ``ssh.py`` keeps one
connection a node and forwards it, ``channel.py`` makes a forwarded channel look like a connection
to aiohttp, ``address.py`` reads what a person calls a machine (pure).
"""
