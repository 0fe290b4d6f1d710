"""An example plug-in for compressbench."""
