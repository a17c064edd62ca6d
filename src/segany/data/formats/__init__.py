"""The file formats in which instances are written."""
