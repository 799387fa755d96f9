"""The Compose language as data: which keys there are, and how each behaves.

A stage of loading that must treat an attribute in its own way (merge it, resolve it as
a path, cast it after interpolation) finds that in a column of these tables instead of
naming the attribute itself; so a key that Compose gets tomorrow is one line here.
"""
