"""Mistakes that are valid Compose: what a reviewer would say of the file.

Loading and compiling already refuse what cannot run. A rule here speaks of what would
run and surprise somebody; it never changes what is deployed.
"""
