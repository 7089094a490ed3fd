"""Image models on slides: what they learn from, how they are tuned, what they are given, and what they predict."""
