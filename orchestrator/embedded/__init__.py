"""Controller and agent of this machine, started by the first ``corral up`` and kept running.

``daemons.py`` starts, waits, stops and explains; the work is done by two units where systemd runs
(``systemd.py``), elsewhere by ``supervisor.py``, a resident program on the bare interpreter. No
container is touched: whoever is started adopts what lives.
"""
