"""The version of tea; kept apart so that `tea --version` need import nothing else."""

__version__ = "0.1.0"
