"""Tasks of this node, from the instruction to the last trace.

``compose.py`` joins the parts: ``worker`` gives every wanted task a ``runner``, which asks
``lifecycle`` (pure) for the next step, writes it to the ``journal`` and performs it through
``effects``. ``networking`` keeps the network at the set, ``reports`` tells what is seen.
"""
