"""Hosts out of namespaces on one machine: to try corral, and to run every multi-host test.

A *lab* is a named set of hosts joined by a bridge that lives in a network namespace of its own,
so that nothing of it touches the machine's own network. A host looks like a machine that was just
installed: pid 1, sshd, its own file system (an overlay over the machine's, so Python, crun and
the checkout are there), disk, cgroups, boot id. It joins a cluster exactly as a real one does:
through SSH.

``lab.py`` is the whole lab and its life, ``host.py`` one host, ``init.py`` the program that
becomes a host's pid 1, ``layout.py`` what goes where (pure), ``cgroups.py`` the control groups,
``faults.py`` what can be wrong on purpose (pure), ``links.py`` makes links and clocks so,
``killing.py`` ends processes, ``cli.py`` the command ``corral lab``.
"""
