"""What happens to a task."""
