"""Many files become one tree: include, extends, override, and the long form of everything.

The order of the steps is what users are surprised by; it is written down in one method
of :mod:`specs.compose.merging.pipeline`. A merged value remembers what it replaced.
"""
