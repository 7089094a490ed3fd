"""Tables of many rows that stay in their store.

Floor 1.
"""
