"""The simulation: the real controller and agents on machines in memory, by a seed."""
