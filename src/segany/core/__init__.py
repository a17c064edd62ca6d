"""The values that pass between the parts of segany, and what all of them need: errors, files, run lengths, boxes."""
