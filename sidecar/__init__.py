"""A reverse proxy in front of one HTTP API that closes the whole incident loop."""

from sidecar import compiled as compiled  # before any other module: it decides how they are found

__version__ = "0.1.0"
