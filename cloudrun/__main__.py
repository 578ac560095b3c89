"""`python -m cloudrun` and the `cloudrun` command."""

from cloudrun.cli import main

if __name__ == "__main__":
    main()
