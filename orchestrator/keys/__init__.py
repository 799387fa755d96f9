"""Who this cluster is, and what proves and protects it.

``identity.py`` is the ``/cluster`` record: id, address range, and the epoch by which the older of
two controllers notices that it is not the one any more. ``vault.py`` seals secrets under a key
that is never in the store, ``sealing.py`` the records that tell of an environment; ``ca.py`` signs
the certificates by which nodes know each other.
"""
