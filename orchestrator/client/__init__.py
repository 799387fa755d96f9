"""The controller's API as calls, for the CLI: HTTP over a unix socket, SSH or TCP.

Every command pays for what this imports, so it is the standard library's sockets and JSON, no
asyncio and no models. It knows requests, streams and how refusals read, and nothing of commands.
"""
