"""The parts of `plan` and `push`: whose record a row is, what differs, what is written down about it."""
