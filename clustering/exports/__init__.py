"""Models and labels in the files of other programs. Nothing here reads them back into this library."""
