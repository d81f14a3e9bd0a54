"""A reverse proxy in front of one HTTP API that closes the whole incident loop."""

__version__ = "0.1.0"
