"""What the platform promises about speed, measured against its peers in one run: ``make bench``."""
