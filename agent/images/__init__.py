"""Images of this node: pulled, built, imported, unpacked once per layer, mounted per task."""
