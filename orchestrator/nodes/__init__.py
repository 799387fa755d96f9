"""Which machines are members, and how they become and stop being so.

``members.py`` has the records: join, label, drain, leave. ``local.py`` makes the controller's own
machine the first node; ``machines.py`` is everything SSH, loaded when there is a second one;
``bootstrap/`` is what is done on that machine.
"""
