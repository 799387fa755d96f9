"""One pass of the control loop, decided: mirror and time in, changes of one draft out.

``stacks.py`` is the order: what a stack is steered to (``releases.py``), which tasks that means
(``services.py``, asking ``scheduler``), which of them may start (``gates.py``), how one goes
(``stopping.py``, ``removal.py``), where the new ones go (``placement.py``) and with which
address (``addresses.py``, ``networks.py``), what is left over (``reaper.py``). Before it,
``ingest.py`` wrote down what nodes reported.

Nothing here waits or writes to the store: a pass may be repeated, and thrown away when another
writer was faster. A planner that knows when things change by themselves returns that time.
"""
