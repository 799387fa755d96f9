"""Records and their changes in words, for ``up``, ``ps`` and whoever reads events.

``words.py`` says how a task, a service and a release are, ``causes.py`` why a release failed,
``news.py`` what changed between two records of a task. ``progress.py`` streams them to readers
as things change. The API's rows use the same words, so that two commands never describe one
task differently.

It reads the mirror only, and decides nothing.
"""
