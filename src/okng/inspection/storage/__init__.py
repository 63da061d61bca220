"""Where images lie that are not files here, and what is kept of them here."""
