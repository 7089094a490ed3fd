"""Networks, losses and augmentation: pure torch, one tensor in, one tensor out.

Floor 1: may import the ground floor.
"""
