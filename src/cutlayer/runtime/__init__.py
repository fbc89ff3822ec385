"""DO IT: parties that perform programs, the simulator, the uncut twin."""
