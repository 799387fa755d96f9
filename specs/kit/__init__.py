"""Small tools the daemons share: time, logs, back-off, allocation. They know nothing of corral.

What is here takes what it needs as arguments and imports nothing of ours, so that any
module may use it, the smallest processes too.
"""
