"""The resolver of this node: one small process that answers containers with tasks and services."""
