"""What every service's HTTP side has in common: the application itself, problems, tokens and limits."""
