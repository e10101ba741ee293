"""Finding the stored texts that are nearest to a question."""
