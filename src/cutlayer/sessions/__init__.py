"""BETWEEN ORGANISATIONS: parties on different machines perform one program, and go on after any of them died."""
