"""``python -m codream_secure``."""

from codream_secure.cli import main

if __name__ == "__main__":
    main()
