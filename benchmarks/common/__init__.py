"""What several benchmarks share, and no benchmark by itself."""
