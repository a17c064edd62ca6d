"""Workers for other implementations. Each runs under an interpreter that has that package, never under ours."""
