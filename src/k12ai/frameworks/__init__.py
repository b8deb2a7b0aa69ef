"""What tasks run: each framework is a schema, a command and an image."""
