"""What everything else builds on: pydantic and the standard library only."""
