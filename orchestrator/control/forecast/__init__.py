"""What `up` would do: the planner of ``control.planning`` itself, over a fork of the mirror.

``playing.py`` makes the release in the fork and lets pass after pass decide, in a time of its own;
``world.py`` stands for the nodes, which do what they are told and tell it after the time it
usually takes; ``known_images.py`` asks what the images are without fetching any; ``outcome.py``
says in words what came of it (``specs.plans``). Nothing is written, no agent is told anything, and
no decision is made here.
"""
