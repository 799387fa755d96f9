"""Copies of the controller's state: made while it works, kept, checked, and put back.

``envelope.py`` is the file; ``contents.py`` what goes into it; ``schedule.py`` when one is due
(pure); ``keeping.py`` which files there are and which go; ``making.py`` the controller's part;
``restoring.py`` takes one apart again, where no controller runs; ``verifying.py`` tries that.
"""
