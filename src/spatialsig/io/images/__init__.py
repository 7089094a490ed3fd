"""Opened H&E files of every format as windows of 8-bit RGB."""
