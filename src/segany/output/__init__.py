"""Results for people and for other programs: pictures, and files in several formats."""
