"""
A reverse proxy in front of one HTTP API that closes the incident loop:
measure → detect → isolate → verify → mitigate → learn.
"""

__version__ = "0.1.0"
