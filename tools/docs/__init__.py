"""The parts of the documentation that are made, not written: models, commands, API, tutorials."""
