"""What the machine is doing."""
