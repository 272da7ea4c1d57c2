"""Links: sources and sinks that connect the loop to the world."""
