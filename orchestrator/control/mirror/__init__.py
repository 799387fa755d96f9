"""The store in memory, what is observed beside it, and what both say together.

``cluster.py`` follows the store, ``records.py`` says which key holds what, ``draft.py`` collects
the changes of one pass and commits them. ``health.py`` and ``observed.py`` keep what is never
stored: who answers, since when. The rest are questions that several rooms ask and that have one
answer here: does a task serve (``serving.py``), what is a node (``node_view.py``), which network
(``network_names.py``), which ports (``ports.py``), which spec (``released.py``,
``effective.py``), in which order (``dependencies.py``).

It decides nothing.
"""
