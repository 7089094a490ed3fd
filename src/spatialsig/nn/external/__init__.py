"""Image networks that others trained: how they are loaded and wrapped."""
