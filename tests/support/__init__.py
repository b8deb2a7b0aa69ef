"""Real things for tests to hold on to: a server, an Engine, containers."""
