"""Command line: ``spatialsig COMMAND``. Nothing heavy is imported before a command needs it."""

from .program import app, main

__all__ = ["app", "main"]
