"""Command line: ``spatialsig COMMAND``. Nothing heavy is imported before a command needs it."""

from .app import app, main

__all__ = ["app", "main"]
