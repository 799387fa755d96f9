"""What the kernel offers and Python does not: calls, netlink, inotify; and files whole on disk."""
