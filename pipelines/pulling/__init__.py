"""The parts of `pull`: what to ask for, how it differs from what is there, loading, marking, history."""
