"""Faults at random on a real lab of five hosts, under requests and commands."""
