"""Who may do what: tokens, classes, and the limits on how often."""
