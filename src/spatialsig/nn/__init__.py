"""Networks, losses and augmentation: pure torch, one tensor in, one tensor out."""
