"""Files of a Xenium bundle read into checked tables and arrays."""
