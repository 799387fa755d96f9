"""What `corral watch` decides and sees: rules, what is behind, a tree of files, their changes.

``rules`` and ``ledger`` are pure; ``tree`` compares what is on this machine's disk with what was,
``notices`` tells when that is worth while. ``watching`` acts.
"""
