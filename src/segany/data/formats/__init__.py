"""The file formats that masks are written in."""
