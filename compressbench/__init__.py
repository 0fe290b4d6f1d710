"""Which compressed model should I deploy?"""

__version__ = "0.1.0"
