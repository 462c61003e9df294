"""Looking at credit: a local page, one file to send to others, and a terminal's view. Reads what runs left on disk."""
