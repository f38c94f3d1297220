"""What the figures stand beside: plain programs, written as they are written elsewhere."""
