"""What every room stands on: errors, the one base of all checked data, contracts, names, readings, statistics."""
