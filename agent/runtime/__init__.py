"""From a bundle to a process and back: conmon and crun, exits, logs, exec."""
