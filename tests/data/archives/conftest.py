"""The script that makes archives is no test: it imports its neighbour as scripts do."""

collect_ignore = ["make.py"]
