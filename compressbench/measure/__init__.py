"""The measuring loop: warm-up, interleaved blocks, and nothing between the clock and the work."""
