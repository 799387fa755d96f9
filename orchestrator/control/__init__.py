"""What should run where: requests in, tasks out, reports back. The middle of the straight line.

``control.py`` is the loop, and the only writer of what is in these rooms: ``deploy`` turns a
request into a release, ``planning`` decides what that means for tasks, ``wanted.py`` says what
each node should hold, ``notices.py`` who must look again, ``telling`` puts it into words.
``mirror`` is the store in memory; everything else reads it and nothing but a draft changes it.
Nothing in here talks to a node: that is ``orchestrator.dispatch``.
"""
