"""The parts of `roundtrip report`: its questions to the warehouse, its charts and its page."""
