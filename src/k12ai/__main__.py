"""``python -m k12ai`` is the command ``k12ai``."""

from k12ai.cli.main import run

if __name__ == "__main__":
    run()
