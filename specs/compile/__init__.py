"""What corral makes of a project: the stack it runs, and a verdict on every key used.

``specs.compose`` says what a file means in Compose; here that becomes the
:class:`specs.stack.StackSpec` the controller stores. The table of
:mod:`specs.compile.support` is the one place that says which keys are honoured; the
compiler, ``corral lint``, the editors' schema and the support page all go by it.
"""
