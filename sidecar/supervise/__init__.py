"""What the supervisor is made of; like it, the standard library only."""
