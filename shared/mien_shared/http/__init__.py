"""The HTTP code that all services share: the application, problems, tokens and limits."""
