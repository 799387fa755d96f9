"""Named volumes, binds, tmpfs, and secrets that never touch a disk."""
