"""HTTP in: a route parses, calls one thing and answers."""
