"""From bytes to trees: finding files, parsing YAML, putting variables in.

Whatever leaves this room still has the shape it was written in, and every value knows
the file, line and column it stands at. The collector of everything found wrong,
:class:`~specs.findings.Findings`, is handed out from here.
"""
