"""Pixels on their way into a store: layout, pyramid levels, chunks written by the threads that made them."""
