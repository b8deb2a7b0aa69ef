"""What the seed's notebooks import."""
