"""From a request to a release that can be planned.

``commands.py`` is every request as one transaction. A deploy is compiled and checked against the
cluster in ``release.py``, with the help of ``ports.py`` and ``contents.py``; what these steps
share is ``deployment.py``. The release is then pending: ``background.py`` has its images built
and resolved beside the loop (``images.py``), and the loop writes the outcome.
"""
