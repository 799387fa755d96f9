"""One merged tree becomes the project that callers get: bound, defaulted, checked, selected.

Here values take the types of the canonical model (``corral config --format json``), and
here are the checks that need the whole. :class:`~specs.compose.project.model.Project`
keeps the tree beside the model, to answer where a value came from.
"""
