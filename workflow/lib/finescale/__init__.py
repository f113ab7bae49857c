"""Finescale: verified statistical downscaling of climate simulations."""

__version__ = "0.1.0"
