"""What a split of a network costs, before anything is trained: FLOPs, bytes, memory, time, by cut and by party."""
