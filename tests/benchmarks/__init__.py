"""Long runs and measurements, each by a command that prints its figures."""
