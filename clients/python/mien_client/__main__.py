"""`python -m mien_client`: the same as `mien`."""

from mien_client.cli import main

if __name__ == "__main__":
    main()
