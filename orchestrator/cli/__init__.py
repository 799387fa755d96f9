"""The command ``corral``: a user of the API like any other.

``main.py`` finds the command and loads no other; ``commands/`` has a module a verb, ``show/`` is
what a person sees meanwhile and at the end. It prints, asks and waits; what it says about tasks,
nodes and releases comes as words from the controller.
"""
