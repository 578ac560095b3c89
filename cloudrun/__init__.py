"""cloudrun: rent a GPU, run a job folder on it, bring the results home."""

__version__ = "0.1.0"
