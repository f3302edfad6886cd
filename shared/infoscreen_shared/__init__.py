"""The wire contract between kiosk and server, and nothing else: no I/O, no clock, standard library only.

Something belongs here only if both sides would break when they disagreed about it.
"""

__version__ = "0.1.0"
