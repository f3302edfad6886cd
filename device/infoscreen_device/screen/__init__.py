"""What the capture helper is made of; the agent imports none of it."""
