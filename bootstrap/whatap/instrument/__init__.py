"""One file per library, read when the library is imported."""
